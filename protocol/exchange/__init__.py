"""How contents travel: wishes, sources, pieces, uploads."""

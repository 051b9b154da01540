"""Who is here and who rules: finding, joining, following, electing."""

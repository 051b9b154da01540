"""What uploads ask of their owner, noted down."""

from __future__ import annotations

from collections import Counter

FILE = b"f" * 32


class UploadHands:
    def __init__(self):
        self.sent = []
        self.reads = []
        self.in_link = Counter()
        self.numbers = 0

    def send(self, link, message):
        self.sent.append((link, message))

    def backlog(self, link):
        return self.in_link[link]

    def read(self, link, file_id, index, offset, length, now):
        self.reads.append((link, file_id, index, offset, length))

    def counted_as(self, upload, file_id):
        return file_id

    def next_number(self):
        self.numbers += 1
        return self.numbers

    def take(self, kind):
        found = [(link, message) for link, message in self.sent if isinstance(message, kind)]
        self.sent = [one for one in self.sent if not isinstance(one[1], kind)]
        return found

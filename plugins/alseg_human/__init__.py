"""A person labels: the keyboard-first page, as an oracle and as a selector."""

"""The pages that are made from code, one module a subject."""

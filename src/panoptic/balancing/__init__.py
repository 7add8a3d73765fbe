"""Task losses to one scalar."""

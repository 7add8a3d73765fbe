"""Damage to files, for tests of what readers say about it."""


def cut(path, kept):
    """Keep so many first bytes of a file, a share of them if `kept` is a float."""
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])


def make_link_to_nowhere(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")

class ImageProof:
    """The proof that a buffer is a usable image; RouteTable takes one in place of the image."""

    is_done: bool

    def __init__(self, image: object) -> None:
        """Begin with the header; raises ValueError where that is none."""
    def step(self, records: int) -> bool:
        """Prove so many records more; True at the end. Raises ValueError for what is no image."""

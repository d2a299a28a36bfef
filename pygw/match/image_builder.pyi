from pygw.model import RouteConfig

class ImageBuilder:
    """Writes an image; tables.compile_image() says what goes in. Routes first, then what refers to them."""

    backend_keys: list[str]

    def __init__(self, seed: bytes) -> None:
        """`seed`: 16 octets, the key of the image's hash tables; random and secret unless a test needs it fixed."""
    def add_route(self, route: RouteConfig) -> int:
        """Its rules and matches. Call in the order of precedence (steps 6 and 7); the first route is number 0."""
    def add_listener(self, key: str) -> int: ...
    def add_bucket(self, routes: list[int]) -> int:
        """The routes (by number, ascending) that have one hostname: indexes all their matches."""
    def add_scope(self, values: dict[str, int], is_site: bool = False) -> int:
        """Hostnames ("" for none, wildcards as "*.example.com") and what each leads to: a site's to groups, others to
        buckets."""
    def add_group(self, scope: int, listener: int, attachments: list[tuple[int, int]], has_http: bool) -> int:
        """Listeners with one hostname; `attachments` are (route, listener), empty where all came by `listener`.

        `has_http`: whether an HTTPRoute is attached, so that what no route takes is "not found" and no other protocol.
        """
    def add_site(self, address: str, port: int, scope: int) -> int: ...
    def finish(self) -> bytes:
        """The image. Raises ValueError where it would pass 4 GiB."""

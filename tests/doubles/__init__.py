"""Fakes and peers that tests share: backends that tell who they are, peers that break the rules."""

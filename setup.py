"""Builds the Cython modules: every pygw/**/*.pyx, all linked into one shared object, pygw._compiled, in which
pygw/compiled.py finds them. All else is in pyproject.toml.

PYGW_DEBUG=1 switches bounds checks and assertions on; PYGW_SANITIZE=1 adds AddressSanitizer and
UndefinedBehaviorSanitizer; PYGW_FUZZ=1 (with CC=clang) beside them the coverage counters of libFuzzer, whose runtime
must be preloaded; PYGW_ONLY=a.pyx,b.pyx builds only those (and pygw/_compiled.pyx, which must be among them).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("PYGW_DEBUG") == "1"
FUZZ = os.environ.get("PYGW_FUZZ") == "1"
SANITIZE = FUZZ or os.environ.get("PYGW_SANITIZE") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "always_allow_keywords": True,
}

compile_args = ["-O1", "-g"] if DEBUG or SANITIZE else ["-O2", "-g0", "-fvisibility=hidden"]
link_args = []
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    compile_args += flags
    link_args += flags
if FUZZ:
    compile_args += ["-fsanitize=fuzzer-no-link", "-fno-sanitize-recover=undefined"]

chosen = os.environ.get("PYGW_ONLY")
sources = sorted(chosen.split(",") if chosen else map(str, Path("pygw").rglob("*.pyx")))
modules = [source.removesuffix(".pyx").replace("/", ".") for source in sources]


class BuildTogether(build_ext):
    """Compiles the C files side by side, those that changed, and links all into one shared object.

    (Two modules of the same name, in whatever packages, are an error of the linker: PyInit_NAME is defined twice.)
    """

    def build_extension(self, extension):
        with ThreadPoolExecutor(int(self.parallel or 1)) as pool:
            objects = list(pool.map(lambda source: self.compile_one(extension, source), extension.sources))
        path = Path(self.get_ext_fullpath(extension.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(path), extra_postargs=extension.extra_link_args)
        self.remove_single(self.build_lib)

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        self.remove_single(".")

    def remove_single(self, root):
        """Removes what an earlier setup.py linked: a module in an object of its own, which Python would find first."""
        for module in modules:
            if module != "pygw._compiled":
                Path(root, self.get_ext_filename(module)).unlink(missing_ok=True)

    def compile_one(self, extension, source):
        """The object file of a C file."""
        kind = "-".join(["debug"] * DEBUG + ["sanitize"] * SANITIZE + ["fuzz"] * FUZZ) or "release"
        made = Path(self.build_temp, kind, source).with_suffix(".o")
        is_list = source.endswith("_compiled.c")  # of all modules, which is no file that could have changed
        if is_list or self.force or not made.exists() or made.stat().st_mtime < Path(source).stat().st_mtime:
            made.parent.mkdir(parents=True, exist_ok=True)
            [compiled] = self.compiler.compile(
                [source], output_dir=str(Path(self.build_temp, kind)), include_dirs=extension.include_dirs,
                macros=[("PYGW_MODULES", f'"{" ".join(modules)}"')] if is_list else [],
                extra_postargs=extension.extra_compile_args,
            )
            assert Path(compiled) == made, f"{compiled} is not {made}"
        return str(made)


compiled = cythonize(
    [Extension(module, [source]) for module, source in zip(modules, sources, strict=True)],
    compiler_directives=DIRECTIVES,
    nthreads=0 if len(sources) == 1 else os.cpu_count() or 1,
    emit_linenums=DEBUG,
)
setup(
    cmdclass={"build_ext": BuildTogether},
    ext_modules=[
        Extension(
            "pygw._compiled",
            [source for extension in compiled for source in extension.sources],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ],
)

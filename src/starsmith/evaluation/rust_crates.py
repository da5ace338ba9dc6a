"""The crates that HumanEvalPack's Rust programs use (rand, regex, md5), built once into a folder:

    python -m starsmith.evaluation.rust_crates

Every program of the set imports all three, so a compiler alone runs none of them. `regex` and `md5` come from
Debian's `librust-*-dev` packages where they are installed, else from crates.io. `rand` is ours, the part of its
0.7 that tests of the set use: its numbers come from a fixed seed, so that a verdict repeats. Libraries fit one
version of the compiler, which the folder remembers; after another is installed they are built again.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from starsmith.errors import MachineError
from starsmith.evaluation import toolchains

_DEBIAN: Final = Path("/usr/share/cargo/registry")
_MANIFEST: Final = """\
[package]
name = "crates"
version = "0.0.0"
edition = "2021"

[lib]
path = "crates.rs"

[dependencies]
md5 = "0.7"
rand = { path = "rand" }
regex = { version = "1", default-features = false, features = ["std", "unicode"] }
"""
_FROM_DEBIAN: Final = f"""\
[source.crates-io]
replace-with = "debian"

[source.debian]
directory = "{_DEBIAN}"
"""
_RAND_MANIFEST: Final = """\
[package]
name = "rand"
version = "0.7.0"
edition = "2021"

[lib]
path = "rand.rs"
"""
_RAND: Final = """\
use std::cell::Cell;

thread_local! { static STATE: Cell<u64> = Cell::new(0x9E37_79B9_7F4A_7C15); }

/// SplitMix64.
fn next() -> u64 {
    STATE.with(|state| {
        state.set(state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut mixed = state.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

pub trait Drawn: Sized {
    fn any() -> Self;
    fn between(low: Self, high: Self) -> Self;
}

macro_rules! integers {
    ($($kind:ty),*) => { $(
        impl Drawn for $kind {
            fn any() -> Self { next() as $kind }
            fn between(low: Self, high: Self) -> Self {
                assert!(low < high, "gen_range called with low >= high");
                (low as i128 + (next() as i128).rem_euclid(high as i128 - low as i128)) as $kind
            }
        }
    )* };
}
integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

macro_rules! floats {
    ($($kind:ty),*) => { $(
        impl Drawn for $kind {
            fn any() -> Self { (next() >> 40) as $kind / (1u64 << 24) as $kind }
            fn between(low: Self, high: Self) -> Self { low + Self::any() * (high - low) }
        }
    )* };
}
floats!(f32, f64);

impl Drawn for bool {
    fn any() -> Self { next() & 1 == 1 }
    fn between(low: Self, _high: Self) -> Self { low }
}

pub trait Rng {
    fn gen<T: Drawn>(&mut self) -> T { T::any() }
    fn gen_range<T: Drawn>(&mut self, low: T, high: T) -> T { T::between(low, high) }
    fn gen_bool(&mut self, share: f64) -> bool { f64::any() < share }
}

#[derive(Clone, Copy, Debug)]
pub struct ThreadRng;

impl Rng for ThreadRng {}

pub fn thread_rng() -> ThreadRng { ThreadRng }

pub fn random<T: Drawn>() -> T { T::any() }
"""


def build(folder: Path) -> None:
    """Builds the crates into `folder`; what was there is replaced.

    Raises:
        MachineError: there is no cargo, or it fails; says why.
    """
    cargo, version = shutil.which("cargo"), toolchains.find("rs").version()
    if cargo is None or version is None:
        raise MachineError("cargo and rustc are not both installed; apt-get install cargo")
    shutil.rmtree(folder, ignore_errors=True)
    written = {"Cargo.toml": _MANIFEST, "crates.rs": "", "rand/Cargo.toml": _RAND_MANIFEST, "rand/rand.rs": _RAND}
    if all(any(_DEBIAN.glob(f"{name}-*")) for name in ("md5", "regex", "regex-syntax")):
        written[".cargo/config.toml"] = _FROM_DEBIAN
    for name, text in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [cargo, "build", "--release", "--target-dir", "target"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MachineError(
            f"cargo could not build {', '.join(toolchains.CRATES)}: {done.stderr.strip()[-1000:]}; where "
            f"crates.io is out of reach: {toolchains.DEBIAN_CRATES}"
        )
    for name in toolchains.CRATES:
        (library,) = (folder / "target/release/deps").glob(f"lib{name}-*.rlib")
        shutil.copy(library, folder / f"lib{name}.rlib")
    ready = toolchains.crates_ready(folder, version)
    ready.touch()
    ready.chmod(0o755)


if __name__ == "__main__":
    where = toolchains.environments_folder() / toolchains.RUST_WITH_CRATES
    try:
        build(where)
    except MachineError as error:
        sys.exit(str(error))
    print(f"{', '.join(toolchains.CRATES)} in {where}")

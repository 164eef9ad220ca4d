"""What can be wrong with a machine, its packages, its settings and its model repository: found without serving."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version

import onnxruntime
import psutil

from router import scheduler
from service.admin_access import is_loopback
from service.configuration import SettingsError
from service.device_settings import described
from service.foreseen import check_cores_of, check_policy, ignored
from service.key_file import read_keys
from service.log_words import NO_ROOM
from service.memory import budget_bytes, first_of
from service.neighbour import gateway_at
from service.ports import listener, occupant
from service.settings import Settings
from service.tls import check_certificate
from variants.fingerprint import available_cores, machine_fingerprint
from variants.manifest import VariantManifest
from variants.profiling import load_profile
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.runtimes.contest import gain
from variants.runtimes.defaults import loaded_by_default
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES, lack_of
from variants.shared_sizes import loaded_bytes

_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp")
_SPARE_MEMORY_BYTES = 512 * 1024**2
"""Python, BentoML and onnxruntime before the first model, with room to spare."""
_EMPTY_PROCESS_BYTES = 130 * 10**6
"""What a serving process takes at least before its first model: one with 3 families was measured at 134 MB."""


class Verdict(StrEnum):
    """How bad a finding is. Only `BROKEN` keeps the gateway from serving."""

    FINE = "fine"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `text` is one line that says what was found and, where it is not fine, what to do."""

    subject: str
    verdict: Verdict
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding after the other; hashing a large repository takes seconds."""
    yield from _packages()
    yield from _machine(settings)
    yield from _repository(settings)
    yield _port(settings)
    yield _keys(settings)
    if settings.ssl_certfile is not None:
        yield _certificate(settings)


def _packages() -> Iterator[Finding]:
    yield Finding("python", Verdict.FINE, platform.python_version())
    compiled = scheduler.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    plain = "Python; compiled to C it takes half the time (docs/deploy.md)"
    yield Finding("router", Verdict.FINE, "compiled to C" if compiled else plain)
    # `onnxruntime` may be imported from the package `onnxruntime-gpu`.
    yield Finding("onnxruntime", Verdict.FINE, onnxruntime.__version__)
    yield Finding("bentoml", Verdict.FINE, version("bentoml"))
    try:
        yield Finding("torch", Verdict.FINE, version("torch"))
    except PackageNotFoundError:
        yield Finding("torch", Verdict.NOTE, "not installed: families can be served here but not built (`make build`)")


def _machine(settings: Settings) -> Iterator[Finding]:
    fingerprint = machine_fingerprint(settings.threads)
    yield Finding("machine", Verdict.FINE, f"{fingerprint.description} (fingerprint {fingerprint.digest})")
    flags = set(fingerprint.description.replace(";", " ").split())
    if found := [name for name in _INT8_INSTRUCTIONS if name in flags]:
        yield Finding("int8", Verdict.FINE, f"{', '.join(found)}: int8 variants are fast here")
    else:
        yield Finding("int8", Verdict.NOTE, "no int8 instructions: int8 variants save memory but little time here")
    cores, slots = available_cores(), settings.slot_count
    used = sum(slot.width for slot in settings.places)
    verdict = Verdict.FINE if used <= max(1.0, cores) else Verdict.NOTE
    more = "" if verdict is Verdict.FINE else ": more threads than cores make latencies unpredictable"
    of_what = f"{_count(slots, 'slot')} of {_count(settings.threads, 'thread')}"
    if settings.devices:
        of_what = described((slot.device, slot.width) for slot in settings.places)
    text = f"{cores:g} usable, {of_what}{more}"
    try:
        check_cores_of(settings)
        yield Finding("cores", verdict, text)
    except SettingsError as error:
        yield Finding("cores", Verdict.BROKEN, str(error))
    yield _isolation(settings)


def _isolation(settings: Settings) -> Finding:
    if settings.isolation == "threads":
        said = "batches run in threads: a model that crashes ends the server, which starts again"
        return Finding("isolation", Verdict.FINE, f'{said}; isolation = "processes" costs it its batch')
    if max(settings.widths.values()) > 1:
        of_what = "with several threads a process opens its models anew: they are in memory once a slot"
        wide = ", ".join(name for name, device in settings.devices.items() if device.threads > 1)
        text = f"{of_what} ({wide})" if wide else of_what
        return Finding("isolation", Verdict.NOTE, text)
    return Finding("isolation", Verdict.FINE, "batches run in processes, which share the memory of the models")


def _repository(settings: Settings) -> Iterator[Finding]:
    repository = Repository(settings.models)
    try:
        names = repository.families()
    except OSError as error:
        yield Finding("models", Verdict.BROKEN, f"{settings.models}: cannot be read: {error.strerror}")
        return
    if not names:
        lack = "holds no family" if settings.models.is_dir() else "there is no such folder"
        yield Finding("models", Verdict.BROKEN, f"{settings.models}: {lack}; `pareto build` builds a family")
        return
    yield Finding("models", Verdict.FINE, f"{settings.models}: {', '.join(names)}")
    needed_bytes, folders = 0, list[RevisionFolder]()
    for name in names:
        try:
            folder = repository.open(name)
            needed_bytes += _loaded_bytes(folder, settings)
            yield from _family(folder, settings)
            folders.append(folder)
        except RepositoryError as error:
            yield Finding(name, Verdict.BROKEN, str(error))
    yield _memory(needed_bytes) if settings.memory_budget is None else _budget(settings, needed_bytes, folders)
    yield from _runtimes(folders, settings)
    try:
        check_policy(settings, repository)
    except SettingsError as error:
        yield Finding("policy", Verdict.BROKEN, str(error))
    for setting, text in ignored(settings, names):
        yield Finding(setting, Verdict.NOTE, text)


def _family(folder: RevisionFolder, settings: Settings) -> Iterator[Finding]:
    manifest = folder.manifest
    refused = folder.verify()
    for variant, fault in refused.items():
        yield Finding(manifest.name, Verdict.BROKEN, f"{variant}: {fault}; `pareto build --force {manifest.name}`")
    known = {variant.name for variant in manifest.variants}
    for variant in settings.load_of(manifest.name) or ():
        if variant not in known:
            text = f"families.{manifest.name}.load: no variant {variant!r}, known are {', '.join(sorted(known))}"
            yield Finding(manifest.name, Verdict.BROKEN, text)
    for variant in settings.load_of(manifest.name) or ():
        if variant in known and (lack := lack_of(manifest.variant(variant).runtime)):
            yield Finding(manifest.name, Verdict.NOTE, f"families.{manifest.name}.load: {variant} is refused: {lack}")
    sound = f"revision {manifest.revision}, {len(known) - len(refused)} of {len(known)} variants sound"
    profile = load_profile(folder, settings.threads)
    if profile is None:
        text = f"{sound}; no profile of this machine: a quick one is taken at the start"
        yield Finding(manifest.name, Verdict.NOTE, text)
    else:
        text = f"{sound}; {profile.mode} profile of {profile.taken:%Y-%m-%d %H:%M} UTC"
        yield Finding(manifest.name, Verdict.FINE, text)


def _loaded_bytes(folder: RevisionFolder, settings: Settings) -> int:
    """On each device once, or in `processes` once in each slot of several threads; lookup tables once."""
    slots = Counter(slot.device for slot in settings.places)
    alone = settings.isolation == "processes"
    times = sum(slots[device] if alone and threads > 1 else 1 for device, threads in settings.widths.items())
    return loaded_bytes(folder.manifest, [variant.name for variant in _chosen(folder, settings)], times)


def _chosen(folder: RevisionFolder, settings: Settings) -> Sequence[VariantManifest]:
    wanted = settings.load_of(folder.manifest.name)
    if wanted is None:
        return loaded_by_default(folder.manifest)
    return [variant for variant in folder.manifest.variants if variant.name in wanted]


def _runtimes(folders: Sequence[RevisionFolder], settings: Settings) -> Iterator[Finding]:
    """What this machine can run beside onnxruntime, and what that gains or would gain, where it was measured here."""
    measured = [
        (folder.manifest, profile)
        for folder in folders
        if (profile := load_profile(folder, settings.threads)) is not None
    ]
    for name, runtime in RUNTIMES.items():
        if name == ONNXRUNTIME:
            continue
        gains = "; ".join(filter(None, (gain(name, manifest, profile) for manifest, profile in measured)))
        if lack := runtime.lack():
            yield Finding("runtime", Verdict.NOTE, f"{lack}{f'; measured here before: {gains}' if gains else ''}")
        else:
            build = f"no family has variants for it that were timed here: `pareto build NAME --runtimes {name}`"
            yield Finding(
                "runtime", Verdict.FINE, f"{name} ({runtime.package} {runtime.version or '?'}): {gains or build}"
            )


def _memory(needed_bytes: int) -> Finding:
    free_bytes = psutil.virtual_memory().available
    text = f"{free_bytes / 1e9:.1f} GB available, {needed_bytes / 1e6:.0f} MB of models would be loaded"
    if free_bytes < needed_bytes + _SPARE_MEMORY_BYTES:
        return Finding("memory", Verdict.BROKEN, f"{text}: too little; load fewer variants (families.NAME.load)")
    return Finding("memory", Verdict.FINE, text)


def _budget(settings: Settings, needed_bytes: int, folders: Sequence[RevisionFolder]) -> Finding:
    """What the budget leaves, by what a process takes that has no model; what models take is at least their files."""
    assert settings.memory_budget is not None, "asked for"
    budget = settings.memory_budget
    allowed_bytes, free_bytes = budget_bytes(budget), psutil.virtual_memory().available
    room_bytes = max(0, allowed_bytes - _EMPTY_PROCESS_BYTES)
    text = (
        f"{free_bytes / 1e9:.1f} GB available, memory_budget {budget} is {allowed_bytes / 1e6:.0f} MB, "
        f"of which a process without models takes {_EMPTY_PROCESS_BYTES / 1e6:.0f} MB and more"
    )
    sizes = {folder.manifest.name: [one.size_bytes for one in _chosen(folder, settings)] for folder in folders}
    lacking = {name: least for name, own in sizes.items() if (least := min(own, default=0)) > room_bytes}
    if lacking:
        verdict = Verdict.BROKEN if len(lacking) == len(sizes) else Verdict.NOTE
        return Finding("memory", verdict, f"{text}: {NO_ROOM} of {first_of(lacking)}; raise it")
    if free_bytes < min(allowed_bytes, needed_bytes + _SPARE_MEMORY_BYTES):
        return Finding("memory", Verdict.NOTE, f"{text}: less is available than the budget lets the process take")
    return Finding("memory", Verdict.FINE, text)


def _port(settings: Settings) -> Finding:
    host, port = settings.host, settings.port
    taken = occupant(host, port)
    if taken is None:
        return Finding("port", Verdict.FINE, f"{port} on {host} is free")
    if running := gateway_at(host, port, tls=settings.ssl_certfile is not None):
        text = f"{running} serves at {port} on {host} already, run{listener(port) or ' by another user'}"
        return Finding("port", Verdict.NOTE, f"{text}; a second one needs another --port")
    return Finding("port", Verdict.BROKEN, taken)


def _keys(settings: Settings) -> Finding:
    try:
        keys = read_keys(settings.keys_file)
    except SettingsError as error:
        return Finding("keys", Verdict.BROKEN, str(error))
    if keys is not None:
        return Finding("keys", Verdict.FINE, f"{_count(len(keys), 'API key')}: nobody gets in without one")
    if is_loopback(settings.host):
        return Finding("keys", Verdict.FINE, f"no API keys, and only this machine reaches {settings.host}")
    text = f"no API keys: whoever reaches {settings.host} may ask models; see docs/security.md"
    return Finding("keys", Verdict.NOTE, text)


def _certificate(settings: Settings) -> Finding:
    try:
        check_certificate(settings)
    except SettingsError as error:
        return Finding("certificate", Verdict.BROKEN, str(error))
    return Finding("certificate", Verdict.FINE, f"{settings.ssl_certfile}: HTTPS")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""What can be wrong with a machine, its packages, its settings and its model repository: found without serving."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version

import onnxruntime

from router import scheduler
from service.admin_access import is_loopback
from service.configuration import SettingsError
from service.device_settings import described
from service.finding import Finding, Verdict
from service.foreseen import check_cores_of, check_policy, ignored
from service.key_file import read_keys
from service.memory_check import chosen, lack_here, memory_finding
from service.neighbour import gateway_at
from service.ports import listener, occupant
from service.settings import Settings
from service.tls import check_certificate
from variants.fingerprint import available_cores, machine_fingerprint
from variants.profiling import load_profile
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.runtimes.contest import gain
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES

_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp")


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
    folders = list[RevisionFolder]()
    for name in names:
        try:
            folder = repository.open(name)
            yield from _family(folder, settings)
            folders.append(folder)
        except RepositoryError as error:
            yield Finding(name, Verdict.BROKEN, str(error))
    yield memory_finding(settings, folders)
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
        if variant in known and (lack := lack_here(manifest.variant(variant), settings)):
            yield Finding(manifest.name, Verdict.NOTE, f"families.{manifest.name}.load: {variant} is refused: {lack}")
    if not chosen(folder, settings):
        lacks = (lack_here(variant, settings) for variant in manifest.variants)
        why = next(filter(None, lacks), f"families.{manifest.name}.load names none")
        yield Finding(manifest.name, Verdict.BROKEN, f"none of its variants can be loaded: {why}")
    sound = f"revision {manifest.revision}, {len(known) - len(refused)} of {len(known)} variants sound"
    profile = load_profile(folder, settings.threads)
    if profile is None:
        text = f"{sound}; no profile of this machine with {_count(settings.threads, 'thread')} a batch"
        text += ": a quick one is taken at the start"
        yield Finding(manifest.name, Verdict.NOTE, text)
    else:
        text = f"{sound}; {profile.mode} profile of {profile.taken:%Y-%m-%d %H:%M} UTC"
        yield Finding(manifest.name, Verdict.FINE, text)


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

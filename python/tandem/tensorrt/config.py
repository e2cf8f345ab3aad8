"""IBuilderConfig: how an engine is to be built."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidArgumentError
from ..mesh import Mesh
from .closed import Closed, unsupported
from .device import checked_device, default_device
from .enums import (
    BuilderFlag,
    DeviceType,
    EngineCapability,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    PreviewFeature,
    ProfilingVerbosity,
    RuntimePlatform,
)
from .profile import IOptimizationProfile
from .progress import IProgressMonitor
from .timing import ITimingCache

__all__ = ["IBuilderConfig"]

# Flags whose meaning a build here has, and those whose meaning holds without doing anything.
_meant = {BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL, BuilderFlag.STRIP_PLAN, BuilderFlag.DISABLE_TIMING_CACHE, BuilderFlag.TF32}
_hold = {BuilderFlag.DEBUG, BuilderFlag.STRICT_NANS, BuilderFlag.DISABLE_COMPILATION_CACHE, BuilderFlag.WEIGHT_STREAMING}
_refused = {
    BuilderFlag.EDITABLE_TIMING_CACHE: "timing caches cannot be edited",
    BuilderFlag.ERROR_ON_TIMING_CACHE_MISS: "what a cache lacks is timed",
    BuilderFlag.SPARSE_WEIGHTS: "there are no kernels for sparse weights",
    BuilderFlag.VERSION_COMPATIBLE: "an engine file says itself which version reads it, and there is no lean runtime",
    BuilderFlag.EXCLUDE_LEAN_RUNTIME: "there is no lean runtime",
    BuilderFlag.REFIT_INDIVIDUAL: "an engine can be refitted as a whole or not at all",
    BuilderFlag.MONITOR_MEMORY: "inspectors say the bytes of every rank instead",
    BuilderFlag.DISTRIBUTIVE_INDEPENDENCE: "the order of sums may differ from row to row",
}
_flagless = "precision comes from the types of the network, as in TensorRT 11; use Cast layers, or tandem.build(dtype=...)"


class IBuilderConfig(Closed):
    """Settings of Builder.build_serialized_network. What has no meaning here is an UnsupportedError when it is set."""

    _missing = {
        "algorithm_selector": "kernels are named in tandem.build(kernels=...)",
        "int8_calibrator": "there is no calibration; import a model with Q and DQ nodes",
        "set_tactic_sources": "kernels are named in tandem.build(kernels=...)",
        "plugins_to_serialize": "there are no plugins",
        "set_device_type": "every layer runs on every rank",
    }

    def __init__(self) -> None:
        self._flags: set[BuilderFlag] = set()
        self._limits: dict[MemoryPoolType, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._preview: dict[PreviewFeature, bool] = {}
        self._level: int | None = None
        self._aux_streams = -1
        self._verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self._cache: ITimingCache | None = None
        self._monitor: IProgressMonitor | None = None
        self._mesh: Mesh | None = None
        self._ranks = 0
        self._device = default_device()

    # Flags

    def set_flag(self, flag: BuilderFlag) -> None:
        """REFIT and REFIT_IDENTICAL: weights can be replaced later. STRIP_PLAN: leaves them out. DISABLE_TIMING_CACHE: times anew. TF32:
        GPUs may round operands of f32 products and convolutions to it; not set from the start, other than in TensorRT. DEBUG, STRICT_NANS,
        DISABLE_COMPILATION_CACHE and WEIGHT_STREAMING (of engines for GPUs) hold anyway. Others are an UnsupportedError that says why."""
        flag = BuilderFlag(flag)
        if flag in _refused:
            raise unsupported(f"BuilderFlag.{flag.name}", _refused[flag])
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        """Undoes set_flag; DEBUG may be cleared too, STRICT_NANS holds all the same."""
        self._flags.discard(BuilderFlag(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        """Whether a flag is set."""
        return BuilderFlag(flag) in self._flags

    @property
    def flags(self) -> int:
        """All flags as bits, `1 << int(BuilderFlag.X)` each."""
        return sum(1 << int(flag) for flag in self._flags)

    @flags.setter
    def flags(self, bits: int) -> None:
        wanted = {flag for flag in BuilderFlag if bits >> int(flag) & 1}
        if bits != sum(1 << int(flag) for flag in wanted):
            raise unsupported(f"flags of {bits:#x}", f"some of these bits are no flags here: {_flagless}")
        for flag in wanted:
            self.set_flag(flag)
        self._flags = wanted

    def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None:
        """MULTIDEVICE_RUNTIME_10_16 is accepted; switched off, networks that communicate are refused. No other can be switched on."""
        feature = PreviewFeature(feature)
        if enable and feature != PreviewFeature.MULTIDEVICE_RUNTIME_10_16:
            raise unsupported(
                f"PreviewFeature.{feature.name}",
                "there are no plugins" if "PLUGIN" in feature.name else "memory of activations always follows the shapes",
            )
        self._preview[feature] = enable

    def get_preview_feature(self, feature: PreviewFeature) -> bool:
        """Whether a feature is on; MULTIDEVICE_RUNTIME_10_16 is unless it was switched off."""
        return self._preview.get(PreviewFeature(feature), feature == PreviewFeature.MULTIDEVICE_RUNTIME_10_16)

    # Memory, profiles, effort

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """WORKSPACE: the most bytes of activations and workspace that a rank may take for the typical shapes; the build fails above it.
        TACTIC_SHARED_MEMORY: on-chip memory, of which ranks on the CPU take none. Others are refused."""
        pool = MemoryPoolType(pool)
        if pool not in (MemoryPoolType.WORKSPACE, MemoryPoolType.TACTIC_SHARED_MEMORY):
            raise unsupported(
                f"a limit of {pool.name}",
                "there is no DLA" if "DLA" in pool.name else "no kernel allocates device memory while it is timed",
            )
        if pool_size < 0:
            raise InvalidArgumentError(f"the limit of {pool.name} is {pool_size}, expected a number of bytes from 0")
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        """The limit in bytes; without one, 2**63 - 1."""
        return self._limits.get(MemoryPoolType(pool), 2**63 - 1)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Takes a profile and returns its index. The engine has a program for each, with kernels chosen for its typical shapes, and the
        weights once.
        """
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        """How many were added."""
        return len(self._profiles)

    @property
    def builder_optimization_level(self) -> int:
        """0 to 5: from 3 on kernels are chosen by timing them here, below by rule. Unless it is set, by rule, the same on every machine."""
        return 3 if self._level is None else self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        if not 0 <= level <= 5:
            raise InvalidArgumentError(f"builder_optimization_level is {level}, expected 0 to 5")
        self._level = level

    @property
    def max_aux_streams(self) -> int:
        """The most streams besides the one given that runs may use, -1 for any number. None makes branches of a network run side by side:
        they serve exchanges beside attention over ranks, and the build fails where that wants more.
        """
        return self._aux_streams

    @max_aux_streams.setter
    def max_aux_streams(self, streams: int) -> None:
        if streams < -1:
            raise InvalidArgumentError(f"max_aux_streams is {streams}, expected a number from 0, or -1 for any")
        self._aux_streams = streams

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        """LAYER_NAMES_ONLY or DETAILED: an engine always holds all that its inspector tells. NONE is refused."""
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, verbosity: ProfilingVerbosity) -> None:
        if verbosity == ProfilingVerbosity.NONE:
            raise unsupported("ProfilingVerbosity.NONE", "an engine names its layers in every error")
        self._verbosity = ProfilingVerbosity(verbosity)

    # Times and progress

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        """A cache of measured times from the bytes of ITimingCache.serialize(), or an empty one from b""."""
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Takes times from `cache` and adds to it. Times of other machines are never used, so ignore_mismatch=True is refused."""
        if ignore_mismatch:
            raise unsupported("ignore_mismatch=True", "times of another machine are never used")
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        """The cache that was set, or that the last build made."""
        return self._cache

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        """Told how far the build is, and asked whether to go on."""
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: IProgressMonitor | None) -> None:
        self._monitor = monitor

    # What an engine is for

    @property
    def engine_capability(self) -> EngineCapability:
        """STANDARD; there are no builds for DLA or safety."""
        return EngineCapability.STANDARD

    @engine_capability.setter
    def engine_capability(self, capability: EngineCapability) -> None:
        if capability != EngineCapability.STANDARD:
            raise unsupported(f"EngineCapability.{EngineCapability(capability).name}", "there is one runtime, without certificates")

    @property
    def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
        """NONE; an engine for CPU ranks says itself which instructions it needs."""
        return HardwareCompatibilityLevel.NONE

    @hardware_compatibility_level.setter
    def hardware_compatibility_level(self, level: HardwareCompatibilityLevel) -> None:
        if level != HardwareCompatibilityLevel.NONE:
            raise unsupported(
                f"HardwareCompatibilityLevel.{HardwareCompatibilityLevel(level).name}",
                "kernels are the program's, for every GPU that it was built for",
            )

    @property
    def runtime_platform(self) -> RuntimePlatform:
        """SAME_AS_BUILD."""
        return RuntimePlatform.SAME_AS_BUILD

    @runtime_platform.setter
    def runtime_platform(self, platform: RuntimePlatform) -> None:
        if platform != RuntimePlatform.SAME_AS_BUILD:
            raise unsupported(f"RuntimePlatform.{RuntimePlatform(platform).name}", "ranks run on Linux")

    @property
    def default_device_type(self) -> DeviceType:
        """GPU, unless engines are for CPU ranks: for these TensorRT has no name, and it cannot be read. See `device`."""
        if self._device == "cuda":
            return DeviceType.GPU
        raise unsupported("default_device_type", "engines are for CPU ranks here, for which TensorRT has no name")

    @default_device_type.setter
    def default_device_type(self, device: DeviceType) -> None:
        if device == DeviceType.DLA:
            raise unsupported("DeviceType.DLA", "there is no DLA")
        self._device = checked_device("cuda")

    # Not in TensorRT: what it leaves to the user

    @property
    def mesh(self) -> Mesh | None:
        """Ours, not TensorRT's: the ranks as named axes, such as {"tp": 2}. A network without layers that communicate is then sharded."""
        return self._mesh

    @mesh.setter
    def mesh(self, mesh: Mapping[str, int] | str | None) -> None:
        self._mesh = None if mesh is None else Mesh.parse(mesh) if isinstance(mesh, str) else Mesh(mesh)

    @property
    def device(self) -> str:
        """Ours, not TensorRT's: "cuda" or "cpu". From the start a GPU where there is one, else the CPU; TANDEM_DEVICE in the environment
        says otherwise.
        """
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        self._device = checked_device(device)

    @property
    def num_ranks(self) -> int:
        """Ours, not TensorRT's: ranks that run the engine, where no layer says so (groups that are not all ranks); 0: the layers say."""
        return self._ranks

    @num_ranks.setter
    def num_ranks(self, ranks: int) -> None:
        if ranks < 0:
            raise InvalidArgumentError(f"num_ranks is {ranks}, expected a number from 1, or 0 for what the layers say")
        self._ranks = ranks

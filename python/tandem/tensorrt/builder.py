"""Builder: from a network definition to a serialized engine."""

from __future__ import annotations

from contextlib import nullcontext

from .._core import Engine
from ..errors import InvalidArgumentError, OutOfMemoryError
from .closed import unsupported
from .config import IBuilderConfig
from .entry import EntryPoint
from .enums import BuilderFlag, MemoryPoolType, NetworkDefinitionCreationFlag, PreviewFeature
from .logger import Logger, told
from .memory import IHostMemory
from .network import INetworkDefinition
from .profile import IOptimizationProfile
from .progress import Phases
from .runtime import ICudaEngine

__all__ = ["Builder"]


class Builder(EntryPoint):
    """Makes networks, their settings, and engines from both. Errors are raised, and told to the logger first."""

    _missing = {
        "max_DLA_batch_size": "there is no DLA",
        "platform_has_fast_fp16": "`tandem doctor` says what this machine has",
        "platform_has_fast_int8": "`tandem doctor` says what this machine has",
    }

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """An empty network; `flags` are bits `1 << int(NetworkDefinitionCreationFlag.X)`, and both flags there are hold anyway."""
        known = sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)
        if flags & ~known:
            raise unsupported(f"create_network with flags {flags:#x}", "there are EXPLICIT_BATCH and STRONGLY_TYPED")
        return INetworkDefinition(self, self._logger)

    def create_builder_config(self) -> IBuilderConfig:
        """Fresh settings."""
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        """An empty range of shapes."""
        return IOptimizationProfile()

    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        """Whether an engine can be built; builds one to find out."""
        try:
            self._build(network, config)
        except Exception as error:
            self._logger.log(Logger.ERROR, str(error))
            return False
        return True

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory:
        """The bytes of an engine, for a file or a Runtime.

        Raises:
            InvalidArgumentError, InvalidModelError, UnsupportedError: naming the layer and what is wrong with it.
            OutOfMemoryError: if a rank takes more than the WORKSPACE limit.
            StoppedError: if the progress monitor says so.
        """
        with told(self._logger):
            return self._build(network, config).to_bytes(weights=BuilderFlag.STRIP_PLAN not in config._flags)

    def build_engine_with_config(self, network: INetworkDefinition, config: IBuilderConfig) -> ICudaEngine:
        """An engine to run in this process, without the way over bytes. Raises as build_serialized_network."""
        with told(self._logger):
            if BuilderFlag.STRIP_PLAN in config._flags:
                raise unsupported(
                    "STRIP_PLAN with build_engine_with_config",
                    "an engine without weights does not run; build_serialized_network and refit it",
                )
            return ICudaEngine(self._build(network, config), self._logger, 0)

    def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> Engine:
        phases = Phases(config._monitor) if config._monitor else None
        timed = config._level is not None and config._level >= 3
        cache = config._cache if timed and BuilderFlag.DISABLE_TIMING_CACHE not in config._flags else None
        profiles = [profile._texts() for profile in config._profiles]
        unknown = {name for profile in profiles for name in profile} - {tensor.name for tensor in network._inputs}
        if unknown:
            raise InvalidArgumentError(f"the profile has shapes of {', '.join(sorted(unknown))}, which the network has no inputs for")
        program = network._whole(config._ranks or (config._mesh.size if config._mesh else 1))
        ranks = config._ranks or (0 if config._mesh else program.least_ranks())
        with cache._file() if cache else nullcontext("") as times:
            engine = program.network.build(
                device=config._device,
                mesh=config._mesh,
                ranks=ranks,
                shapes=profiles[0] if len(profiles) == 1 else None,
                profiles=profiles if len(profiles) > 1 else None,
                tf32=BuilderFlag.TF32 in config._flags,
                refittable=bool(config._flags & {BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL, BuilderFlag.STRIP_PLAN}),
                timed=timed,
                timing_cache=times,
                threads=self._threads,
                progress=phases,
            )
        if phases:
            phases.finish()
        for notice in engine.notices:
            self._logger.log(Logger.INFO, notice)
        self._check(engine, config)
        return engine

    def _check(self, engine: Engine, config: IBuilderConfig) -> None:
        """What can only be seen of the finished engine."""
        if engine.collectives and not config.get_preview_feature(PreviewFeature.MULTIDEVICE_RUNTIME_10_16):
            raise InvalidArgumentError("the network communicates, but PreviewFeature.MULTIDEVICE_RUNTIME_10_16 was switched off")
        if 0 <= config.max_aux_streams < engine.auxiliary_streams:
            raise unsupported(
                f"max_aux_streams = {config.max_aux_streams}",
                f"attention over ranks uses {engine.auxiliary_streams} auxiliary streams here",
            )
        limit = config._limits.get(MemoryPoolType.WORKSPACE)
        needed = max(int(rank["activation_bytes"]) for rank in engine.describe()["ranks"])
        if limit is not None and needed > limit:
            raise OutOfMemoryError(
                f"a rank takes {needed} bytes of activations and workspace for the typical shapes; the WORKSPACE limit is {limit}"
            )

"""The enumerations, with TensorRT's words and numbers."""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ActivationType",
    "AttentionIOForm",
    "AttentionNormalizationOp",
    "BuilderFlag",
    "CausalMaskKind",
    "CollectiveOperation",
    "DeviceType",
    "ElementWiseOperation",
    "EngineCapability",
    "ExecutionContextAllocationStrategy",
    "GatherMode",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "LayerType",
    "MatrixOperation",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "ReduceOperation",
    "RuntimePlatform",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "UnaryOperation",
]


class CollectiveOperation(IntEnum):
    """What the ranks of a group do together; docs/ops.md and the contract table say what each gives."""

    ALL_REDUCE = 0
    ALL_GATHER = 1
    BROADCAST = 2
    REDUCE = 3
    REDUCE_SCATTER = 4
    ALL_TO_ALL = 5
    GATHER = 6
    SCATTER = 7


class ReduceOperation(IntEnum):
    """How values are reduced; NONE only for collectives that do not."""

    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    AVG = 4
    NONE = 5


class AttentionNormalizationOp(IntEnum):
    """What is applied to the scores; NONE is refused when the network is built."""

    NONE = 0
    SOFTMAX = 1


class CausalMaskKind(IntEnum):
    """Which keys j a query i may attend to: all, j <= i, or j <= i + (keys - queries)."""

    NONE = 0
    UPPER_LEFT = 1
    LOWER_RIGHT = 2


class AttentionIOForm(IntEnum):
    """How sequences lie: padded [B, H, S, D]; packed [T, H, D] is refused."""

    PADDED_BHND = 0
    PACKED_NHD = 1


class NetworkDefinitionCreationFlag(IntEnum):
    """Networks here have explicit batches and are strongly typed, whether a flag says so or not."""

    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    """Switches of a build; IBuilderConfig.set_flag says which have a meaning here."""

    DEBUG = 2
    REFIT = 4
    DISABLE_TIMING_CACHE = 5
    EDITABLE_TIMING_CACHE = 6
    TF32 = 7
    SPARSE_WEIGHTS = 8
    VERSION_COMPATIBLE = 13
    EXCLUDE_LEAN_RUNTIME = 14
    ERROR_ON_TIMING_CACHE_MISS = 16
    DISABLE_COMPILATION_CACHE = 18
    STRIP_PLAN = 19
    REFIT_IDENTICAL = 20
    WEIGHT_STREAMING = 21
    REFIT_INDIVIDUAL = 23
    STRICT_NANS = 24
    MONITOR_MEMORY = 25
    DISTRIBUTIVE_INDEPENDENCE = 27


class PreviewFeature(IntEnum):
    """Features that TensorRT wanted to be asked for."""

    ALIASED_PLUGIN_IO_10_03 = 1
    RUNTIME_ACTIVATION_RESIZE_10_10 = 2
    MULTIDEVICE_RUNTIME_10_16 = 3


class MemoryPoolType(IntEnum):
    """Memory that a limit can be set for."""

    WORKSPACE = 0
    DLA_MANAGED_SRAM = 1
    DLA_LOCAL_DRAM = 2
    DLA_GLOBAL_DRAM = 3
    TACTIC_DRAM = 4
    TACTIC_SHARED_MEMORY = 5


class ProfilingVerbosity(IntEnum):
    """What an engine tells of its layers."""

    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class HardwareCompatibilityLevel(IntEnum):
    """On which other GPUs an engine is to run."""

    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class RuntimePlatform(IntEnum):
    """On which system an engine is to run."""

    SAME_AS_BUILD = 0
    WINDOWS_AMD64 = 1


class EngineCapability(IntEnum):
    """Which restricted runtime an engine is for."""

    STANDARD = 0
    SAFETY = 1
    DLA_STANDALONE = 2


class DeviceType(IntEnum):
    """Kinds of devices; an engine here says itself what it runs on."""

    GPU = 0
    DLA = 1


class TensorIOMode(IntEnum):
    """What a name is to an engine."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(IntEnum):
    """Where the memory of an input or output lies: HOST for engines of CPU ranks."""

    DEVICE = 0
    HOST = 1


class TensorFormat(IntEnum):
    """How elements lie; always LINEAR, dense and row-major."""

    LINEAR = 0


class ExecutionContextAllocationStrategy(IntEnum):
    """Who allocates the memory of activations, and when."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class LayerInformationFormat(IntEnum):
    """What an inspector writes."""

    ONELINE = 0
    JSON = 1


class OnnxParserFlag(IntEnum):
    """Switches of the ONNX parser."""

    NATIVE_INSTANCENORM = 0
    ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA = 1
    REPORT_CAPABILITY_DLA = 2
    ENABLE_PLUGIN_OVERRIDE = 3


class LayerType(IntEnum):
    """The layers that can be added here."""

    CAST = 1
    ACTIVATION = 2
    SOFTMAX = 6
    CONCATENATION = 8
    ELEMENTWISE = 9
    UNARY = 11
    SHUFFLE = 13
    REDUCE = 14
    GATHER = 16
    MATRIX_MULTIPLY = 17
    CONSTANT = 19
    IDENTITY = 20
    SLICE = 22
    SELECT = 30
    NORMALIZATION = 45
    ATTENTION_OUTPUT = 52
    ROTARY_EMBEDDING = 53
    DIST_COLLECTIVE = 56


class ElementWiseOperation(IntEnum):
    """Functions of two tensors."""

    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    SUB = 4
    DIV = 5
    POW = 6
    FLOOR_DIV = 7
    AND = 8
    OR = 9
    XOR = 10
    EQUAL = 11
    GREATER = 12
    LESS = 13


class UnaryOperation(IntEnum):
    """Functions of one tensor."""

    EXP = 0
    LOG = 1
    SQRT = 2
    RECIP = 3
    ABS = 4
    NEG = 5
    SIN = 6
    COS = 7
    TAN = 8
    SINH = 9
    COSH = 10
    ASIN = 11
    ACOS = 12
    ATAN = 13
    ASINH = 14
    ACOSH = 15
    ATANH = 16
    CEIL = 17
    FLOOR = 18
    ERF = 19
    NOT = 20
    SIGN = 21
    ROUND = 22
    ISINF = 23
    ISNAN = 24


class ActivationType(IntEnum):
    """Activation functions."""

    RELU = 0
    SIGMOID = 1
    TANH = 2
    LEAKY_RELU = 3
    ELU = 4
    SELU = 5
    SOFTSIGN = 6
    SOFTPLUS = 7
    CLIP = 8
    HARD_SIGMOID = 9
    SCALED_TANH = 10
    THRESHOLDED_RELU = 11
    GELU_ERF = 12
    GELU_TANH = 13


class MatrixOperation(IntEnum):
    """What is done to an operand of a matrix product."""

    NONE = 0
    TRANSPOSE = 1
    VECTOR = 2


class GatherMode(IntEnum):
    """How indices are read."""

    DEFAULT = 0
    ELEMENT = 1
    ND = 2

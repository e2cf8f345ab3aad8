"""tandem.tensorrt: logger, errors, types, and names that are not there."""

import logging

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import Heard

FLOAT = trt.DataType.FLOAT


def test_logger_hands_down_to_logging(caplog):
    logger = trt.Logger(trt.Logger.WARNING)
    with caplog.at_level(logging.DEBUG, "tandem.tensorrt"):
        logger.log(trt.Logger.ERROR, "bad")
        logger.log(trt.Logger.INFO, "not told")
        logger.min_severity = trt.Logger.Severity.VERBOSE
        logger.log(trt.ILogger.VERBOSE, "told")
    assert [(r.levelname, r.message) for r in caplog.records] == [("ERROR", "bad"), ("DEBUG", "told")]


def test_errors_are_told_once_and_raised():
    logger = Heard()
    runtime = trt.Runtime(logger)
    with pytest.raises(tandem.Error, match="not an engine") as caught:
        runtime.deserialize_cuda_engine(b"not one")
    assert caught.value.code == "invalid_engine"
    assert [(severity, "not an engine" in text) for severity, text in logger.messages] == [(trt.Logger.ERROR, True)]
    with pytest.raises(tandem.Error, match="logger is expected"):
        trt.Builder(None)


@pytest.mark.parametrize("name", ["Refitter", "init_libnvinfer_plugins", "IInt8Calibrator", "SomethingElse"])
def test_names_that_are_missing(name):
    assert not hasattr(trt, name)
    with pytest.raises(tandem.Error, match=name):
        getattr(trt, name)


def test_types():
    assert trt.volume((2, 3, 4)) == 24 and trt.volume(()) == 1
    assert trt.nptype(trt.float32) is np.float32 and trt.DataType.BF16.itemsize == 2 and trt.DataType.FP8.itemsize == 1
    with pytest.raises(TypeError, match="BF16"):
        trt.nptype(trt.bfloat16)
    assert trt.Dims((2, 3)) == (2, 3) and trt.Dims((2, 3)).numel() == 6 and trt.__version__.startswith("11.")
    weights = trt.Weights(np.ones((2, 3), np.float32))
    assert (weights.dtype, weights.size, len(weights), weights.nbytes) == (FLOAT, 6, 6, 24)
    with pytest.raises(tandem.Error, match="float64"):
        trt.Weights(np.ones(3))
    assert [op.name for op in trt.CollectiveOperation] == [
        "ALL_REDUCE",
        "ALL_GATHER",
        "BROADCAST",
        "REDUCE",
        "REDUCE_SCATTER",
        "ALL_TO_ALL",
        "GATHER",
        "SCATTER",
    ]
    assert [int(op) for op in trt.ReduceOperation] == list(range(6)) and trt.LayerType.DIST_COLLECTIVE == 56

"""What is asked of NVIDIA's driver: its own bindings, over a stand-in for the library the driver brings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from control import telemetry
from media_worker.gpu_metrics import watch_gpus

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
LOST = pynvml.NVML_ERROR_GPU_IS_LOST


class Driver:
    """libnvidia-ml.so.1 as far as it is called: a card, one without an encoder, one that is lost."""

    def __init__(self) -> None:
        self.devices = 3
        self.reachable = True
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        answers: dict[str, Callable[..., int]] = {
            "nvmlInitWithFlags": lambda *_: 0,
            "nvmlDeviceGetCount_v2": self._count,
            "nvmlDeviceGetHandleByIndex_v2": self._handle,
            "nvmlDeviceGetUtilizationRates": lambda _, out: _fill(out, gpu=37, memory=12),
            "nvmlDeviceGetEncoderUtilization": lambda gpu, out, _: self._encoder(gpu, out, 64),
            "nvmlDeviceGetDecoderUtilization": lambda _gpu, out, _: _set(out, 21),
            "nvmlDeviceGetEncoderStats": lambda gpu, out, *_: self._encoder(gpu, out, 5),
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetTemperature": lambda _gpu, _, out: _set(out, 71),
            "nvmlDeviceGetPowerUsage": lambda _, out: _set(out, 142_500),
        }
        if name not in answers:
            raise AttributeError(name)
        self.calls += 1
        return answers[name]

    def _count(self, out: Any) -> int:
        return _set(out, self.devices) if self.reachable else int(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    def _handle(self, index: Any, out: Any) -> int:
        target = out._obj
        ctypes.cast(ctypes.byref(target), ctypes.POINTER(ctypes.c_void_p))[0] = index.value + 1
        return 0

    def _memory(self, gpu: Any, out: Any) -> int:
        if _number(gpu) == 3:
            return int(LOST)
        return _fill(out, total=8 * 1024**3, free=6 * 1024**3, used=2 * 1024**3)

    def _encoder(self, gpu: Any, out: Any, value: int) -> int:
        return _set(out, value) if _number(gpu) == 1 else int(NOT_SUPPORTED)


def _number(gpu: Any) -> int:
    return int(ctypes.cast(gpu, ctypes.c_void_p).value or 0)


def _set(out: Any, value: int) -> int:
    out._obj.value = value
    return 0


def _fill(out: Any, **values: int) -> int:
    for name, value in values.items():
        setattr(out._obj, name, value)
    return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(pynvml, "nvmlLib", made)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 1)
    monkeypatch.setattr(telemetry, "_node", "gpu-1")
    return made


def value(registry: CollectorRegistry, name: str, device: str = "nvenc:0") -> float | None:
    return registry.get_sample_value(f"afterlive_gpu_{name}", {"device": device, "node": "gpu-1"})


def test_a_card_is_measured_in_base_units(driver: Driver) -> None:
    registry = CollectorRegistry()
    assert watch_gpus(registry)
    assert value(registry, "up") == 1
    assert value(registry, "utilisation_ratio") == 0.37
    assert value(registry, "encoder_utilisation_ratio") == 0.64
    assert value(registry, "decoder_utilisation_ratio") == 0.21
    assert value(registry, "encoder_sessions") == 5
    assert value(registry, "memory_used_bytes") == 2 * 1024**3
    assert value(registry, "memory_bytes") == 8 * 1024**3
    assert value(registry, "temperature_celsius") == 71
    assert value(registry, "power_watts") == 142.5


def test_what_a_card_does_not_have_is_left_out(driver: Driver) -> None:
    """An H100 has CUDA and no NVENC: no 0 that looks like an idle encoder."""
    registry = CollectorRegistry()
    watch_gpus(registry)
    assert value(registry, "utilisation_ratio", "nvenc:1") == 0.37
    assert value(registry, "encoder_utilisation_ratio", "nvenc:1") is None
    assert value(registry, "encoder_sessions", "nvenc:1") is None


def test_a_card_that_is_lost_is_down(driver: Driver) -> None:
    registry = CollectorRegistry()
    watch_gpus(registry)
    assert value(registry, "up", "nvenc:2") == 0
    assert value(registry, "memory_used_bytes", "nvenc:2") is None


def test_a_driver_that_goes_away_takes_no_scrape_with_it(driver: Driver) -> None:
    registry = CollectorRegistry()
    watch_gpus(registry)
    driver.reachable = False
    assert b"afterlive_gpu_up{" not in generate_latest(registry)


def test_registering_asks_nothing_but_that_the_driver_starts(driver: Driver) -> None:
    watch_gpus(CollectorRegistry())
    assert driver.calls <= 1


def test_without_a_driver_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, or rather that there is none."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    registry = CollectorRegistry()
    assert watch_gpus(registry) is None
    assert generate_latest(registry) == b""


def _no_library(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")

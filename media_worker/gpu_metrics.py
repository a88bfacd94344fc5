"""How busy NVIDIA GPUs are, asked of the driver at each scrape (NVML, by the package nvidia-ml-py).

Without the package or the driver there are no such metrics, and nothing is asked. VAAPI has no such interface.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from control import telemetry

log = logging.getLogger("afterlive.media")

_LABELS: Final = ("device", "node")
Reading = Callable[[Any, Any], float]
"""(NVML, handle of a device) → value, in the metric's unit. NVML tells utilisation in percent, power in milliwatts."""
_READINGS: Final[dict[str, tuple[str, Reading]]] = {
    "afterlive_gpu_utilisation_ratio": (
        "Share of the time kernels ran (scaling, decoding of some formats)",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    "afterlive_gpu_encoder_utilisation_ratio": (
        "Share of the time NVENC ran",
        lambda nvml, gpu: nvml.nvmlDeviceGetEncoderUtilization(gpu)[0] / 100,
    ),
    "afterlive_gpu_decoder_utilisation_ratio": (
        "Share of the time NVDEC ran",
        lambda nvml, gpu: nvml.nvmlDeviceGetDecoderUtilization(gpu)[0] / 100,
    ),
    "afterlive_gpu_encoder_sessions": (
        "NVENC sessions of all processes on the device, ours or not",
        lambda nvml, gpu: nvml.nvmlDeviceGetEncoderStats(gpu)[0],
    ),
    "afterlive_gpu_memory_used_bytes": (
        "Memory in use, by whomever",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    "afterlive_gpu_memory_bytes": ("Memory there is", lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
    "afterlive_gpu_temperature_celsius": (
        "Temperature",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
    "afterlive_gpu_power_watts": ("Power drawn", lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
}


class Gpus(Collector):
    """Asks each device for each reading. One that a card does not have is left out; a card that is lost has none."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[GaugeMetricFamily]:
        nvml, node = self._nvml, telemetry.node()
        up = GaugeMetricFamily("afterlive_gpu_up", "Whether the driver reaches the device", labels=_LABELS)
        families = {name: GaugeMetricFamily(name, text, labels=_LABELS) for name, (text, _) in _READINGS.items()}
        count = 0
        with suppress(nvml.NVMLError):  # the driver was unloaded: it has no devices now
            count = nvml.nvmlDeviceGetCount()
        for index in range(count):
            labels = (f"nvenc:{index}", node)
            try:
                gpu = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceGetMemoryInfo(gpu)
            except nvml.NVMLError:
                up.add_metric(labels, 0)
                continue
            up.add_metric(labels, 1)
            for name, (_, read) in _READINGS.items():
                with suppress(nvml.NVMLError):
                    families[name].add_metric(labels, read(nvml, gpu))
        yield up
        yield from families.values()

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # registering it asks nothing of the driver


def watch_gpus(registry: CollectorRegistry = REGISTRY) -> Gpus | None:
    """Have the GPUs measured at each scrape; None where there is nothing to ask."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no metrics of GPUs: %s", error)
        return None
    made = Gpus(pynvml)
    registry.register(made)
    return made

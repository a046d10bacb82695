"""Energy use of a process, by codecarbon, without network."""

import logging
from typing import Any

PARTS = {"cpu": "cpu_energy", "gpu": "gpu_energy", "ram": "ram_energy", "total": "energy_consumed"}


class EnergyMeter:
    """Energy of this process in kWh from now on, by part: measured if the machine supports it (Intel's RAPL, NVIDIA's
    NVML), else estimated from the processor's rated power and load (https://mlco2.github.io/codecarbon)."""

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # for the emissions, which are not used
            output_methods=[],
            log_level="critical",
            tracking_mode="process",
            allow_multiple_runs=True,
        )
        self._tracker.start()

    def stop(self) -> dict[str, float] | None:
        """kWh by part (`PARTS`); None if nothing could be measured. An error of the meter must not fail a run."""
        try:
            self._tracker.stop()
            emissions: Any = self._tracker.final_emissions_data
            return {part: float(getattr(emissions, name)) for part, name in PARTS.items()}
        except Exception as error:
            print(f"The energy was not measured: {error}")
            return None

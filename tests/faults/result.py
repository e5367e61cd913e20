"""What one group of the fault campaign found."""

from dataclasses import dataclass, field


@dataclass
class Result:
    """Counts of one group: `lost` describes each trial that lost data, ended in a traceback or left a broken store."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)

    def record(self, problem: str | None) -> None:
        """Count one trial; `problem` is None when it survived."""
        self.tried += 1
        if problem is None:
            self.survived += 1
        else:
            self.lost.append(problem)

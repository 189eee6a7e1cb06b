"""How many pixels the rounds of a run ask, and how many rounds there are."""

from __future__ import annotations

from dataclasses import dataclass

from alseg.config import RunConfig


@dataclass(frozen=True)
class Schedule:
    """What each round asks: what it asked where it is in `asked`, pixels an image, and then what the settings say.

    A round asks what is left of the budget where that is less than `pixels_per_round`; where the budget is raised
    later, the rounds after it go on from what was asked.
    """

    config: RunConfig
    asked: tuple[int, ...] = ()

    def pixels_in(self, round: int, images: int = 1) -> int:
        """How many pixels an image are asked in a round, at most, in a pool of so many images."""
        wanted = self.config.pool_pixels_per_round
        if wanted is None or (round == 0 and self.config.start_from is not None):
            return self.per_image(round + 1)[round]
        return min(wanted, self.config.cap or 4 * -(-wanted // images))

    def per_image(self, rounds: int) -> tuple[int, ...]:
        """Pixels an image in each of the first rounds, where the budget is an image's."""
        pixels = list(self.asked[:rounds])
        while len(pixels) < rounds:
            left = self.config.budget - sum(pixels)
            pixels.append(max(0, min(self.config.pixels_per_round, left)) if pixels else self._first)
        return tuple(pixels)

    def total_rounds(self) -> int:
        """Rounds until the budget is spent, at most `rounds`; 10 where the budget is the pool's."""
        config = self.config
        if config.labels == "all":
            return 1
        if config.pool_pixels_per_round is not None:
            return config.rounds or 10
        done = self.asked or (self._first,)
        rounds = len(done) + max(0, -(-(config.budget - sum(done)) // config.pixels_per_round))
        return rounds if config.rounds is None else min(rounds, config.rounds)

    @property
    def _first(self) -> int:
        return 0 if self.config.start_from is not None else self.config.first_pixels

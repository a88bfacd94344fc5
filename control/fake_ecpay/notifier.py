"""The fake tells of payments, as ECPay does: until it hears `1|OK`, a few times, then never again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from control.fake_ecpay.trades import Lies, Merchant, Trade

ACCEPTED: Final = "1|OK"
_WRONG: Final = "0" * 64
_SECONDS: Final = 10.0


@dataclass
class Attempt:
    """One time it told."""

    url: str
    fields: dict[str, str]
    status: int | None
    """None: it never got there."""
    answer: str


@dataclass
class Notifier:
    """Tells `ReturnURL`s. ECPay tells again after 5 to 15 minutes, four times."""

    merchant: Merchant
    again_seconds: float = 600.0
    times_again: int = 4
    lies: Lies = field(default_factory=Lies)
    attempts: list[Attempt] = field(default_factory=list)
    held: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def tell(self, trade: Trade, *, paid: bool, simulated: bool = False) -> None:
        """From now on, beside all else."""
        fields = trade.notice(paid=paid, simulated=simulated)
        if self.lies.amount is not None:
            fields["TradeAmt"] = str(self.lies.amount)
        if self.lies.merchant is not None:
            fields["MerchantID"] = self.lies.merchant
        fields = self.merchant.sign(fields)
        if not self.lies.signature:
            fields["CheckMacValue"] = _WRONG
        url = trade.asked["ReturnURL"]
        if self.lies.hold:
            self.held.append((url, fields))
        else:
            self._start(self._until_heard(url, fields, self.lies.delay_seconds, self.lies.copies))

    def release(self, order: str) -> int:
        """Send what is held, one after the other: `held`, `reversed` or `shuffled`. How many."""
        waiting, self.held = self.held, []
        if order == "reversed":
            waiting.reverse()
        if order == "shuffled":
            random.shuffle(waiting)
        self._start(self._in_order(waiting))
        return len(waiting)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_order(self, waiting: list[tuple[str, dict[str, str]]]) -> None:
        for url, fields in waiting:
            await self._once(url, fields)

    async def _until_heard(self, url: str, fields: dict[str, str], delay_seconds: float, copies: int) -> None:
        await asyncio.sleep(delay_seconds)
        for _ in range(1 + self.times_again):
            if self.lies.drop > 0:
                self.lies.drop -= 1
                self.attempts.append(Attempt(url, fields, None, "dropped"))
            elif all(await asyncio.gather(*(self._once(url, fields) for _ in range(copies)))):
                return
            await asyncio.sleep(self.again_seconds)

    async def _once(self, url: str, fields: dict[str, str]) -> bool:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            async with httpx.AsyncClient(timeout=_SECONDS) as client:
                answer = await client.post(url, content=urlencode(fields), headers=headers)
        except httpx.HTTPError as error:
            self.attempts.append(Attempt(url, fields, None, type(error).__name__))
            return False
        self.attempts.append(Attempt(url, fields, answer.status_code, answer.text))
        return answer.status_code == httpx.codes.OK and answer.text == ACCEPTED

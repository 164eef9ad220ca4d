"""The process that sends: locust with a runner of its own, told what to do by `loadtests.harness.conductor`.

Locust brings users, runners, workers on other machines and the web page; when requests leave is `loadtests.openloop`'s.
Started as `python -m loadtests.harness.generator FD`, where FD is one end of a pair of sockets; ends when the other end
is closed.
"""

from __future__ import annotations

import socket
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

import gevent  # type: ignore[import-untyped]  # gevent carries no types
from locust import LoadTestShape, events
from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments
from locust.env import Environment
from locust.runners import MasterRunner, Runner

from loadtests.harness.cargo import Cargo, Plan
from loadtests.harness.link import Link, LinkClosedError
from loadtests.harness.station import Observe, Station, Tell
from loadtests.harness.user import OpenLoopUser
from loadtests.harness.workers import Generated, Workers, WorkersError, fared
from loadtests.openloop import LEAD_S

FORM = ("rate", "duration", "slo_mix", "seed")
"""What the form of the web page asks for beside locust's own."""
_WATCH_S = 0.2


class Alone:
    """The one generator is this process."""

    count = 1

    def __init__(self, cargo: Cargo, observe: Observe | None) -> None:
        self._station = Station(cargo, observe)

    def accept(self, plan: Plan) -> None:
        """Take a plan, of which nothing is sent yet. It can be stopped from now on."""
        self._station.accept(plan)

    def run(self, tell: Tell) -> Generated:
        """Send the plan that was accepted."""
        part = self._station.run(LEAD_S, tell)
        return Generated(part, [fared(part)])

    def stop(self) -> None:
        """Send no more of the plan that was accepted, also where it does not run yet."""
        self._station.stop()


class WholeLoad(LoadTestShape):
    """One user in each generator for as long as the profile lasts: the web page asks for no numbers of users."""

    over = False
    users = 1

    def reset_time(self) -> None:
        """Locust begins anew: somebody has pressed start."""
        super().reset_time()  # type: ignore[no-untyped-call]  # locust's is not annotated
        self.over = False

    def tick(self) -> tuple[int, float] | None:
        """See locust."""
        return None if self.over else (self.users, 100.0)


class Generator:
    """Does what the link says, one thing at a time but for `stop`."""

    def __init__(self, link: Link, setup: Mapping[str, Any]) -> None:
        self._link = link
        self._web: tuple[str, int] | None = setup["web"] and tuple(setup["web"])
        cargo = Cargo.unpack(setup["cargo"])
        self._environment = Environment(user_classes=[OpenLoopUser], events=events, host=cargo.url)
        self._runner: Runner
        self._sender: Alone | Workers
        if setup["workers"]:
            runner = self._environment.create_master_runner(setup["bind"][0], setup["bind"][1])
            self._runner, self._sender = runner, Workers(runner, cargo, observed=self._web is not None)
        else:
            self._runner = self._environment.create_local_runner()
            self._sender = Alone(cargo, observing(self._environment) if self._web else None)
        if self._web:
            self._open_page(*self._web, setup["form"])

    def serve(self) -> None:
        """Until the other end is closed."""
        port = self._runner.server.port if isinstance(self._runner, MasterRunner) else 0
        self._link.say("ready", port=port)
        while (said := self._link.hear()) is not None:
            match said.kind:
                case "workers":
                    self._link.say("workers", count=self._sender.count)
                case "run":
                    # Accepted before the next message is heard: that may be `stop`.
                    self._sender.accept(Plan.unpack(said.values["plan"]))
                    gevent.spawn(self._run)
                case "stop":
                    self._sender.stop()
                case "over":
                    self._end()

    def quit(self) -> None:
        """Send workers home."""
        self._runner.quit()

    def _run(self) -> None:
        try:
            whole = self._sender.run(lambda counts: self._link.say("counts", **counts))
            self._link.say("ran", part=whole.part.pack(), generators=whole.generators)
        except LinkClosedError:
            return
        except WorkersError as error:
            self._link.say("broken", why=str(error))
        except Exception as error:  # noqa: BLE001 - told to who asked, who ends this process
            self._link.say("broken", why=f"{type(error).__name__}: {error}")

    def _end(self) -> None:
        """The profile is over: the page shows it as stopped, and its button begins anew."""
        shape = self._environment.shape_class
        if isinstance(shape, WholeLoad):
            shape.over = True

    def _open_page(self, host: str, port: int, form: Mapping[str, Any]) -> None:
        def offer(parser: ArgumentParser) -> None:
            # Not in a group: locust's page shows what the parser itself was given.
            for name in FORM:
                kind = type(form[name]) if form.get(name) is not None else str
                parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=form.get(name))

        def pressed(**_: Any) -> None:
            shape.users = max(1, self._sender.count)
            options = vars(self._environment.parsed_options)
            self._link.say("pressed", form={name: options[name] for name in FORM})

        def halted(**_: Any) -> None:
            if not shape.over:
                self._link.say("halted")
                self._sender.stop()

        events.init_command_line_parser.add_listener(offer)
        events.test_start.add_listener(pressed)
        events.test_stopping.add_listener(halted)
        # No file of settings for locust has a say here.
        parser = get_empty_argument_parser(default_config_files=[])
        setup_parser_arguments(parser)
        events.init_command_line_parser.fire(parser=parser)
        shape = self._environment.shape_class = WholeLoad()  # type: ignore[no-untyped-call]  # locust's is not annotated
        self._environment.parsed_options = parser.parse_args([])
        self._environment.create_web_ui(host, port)


def observing(environment: Environment) -> Observe:
    """Tell locust of every end: its page has tables and charts of them."""

    def observe(name: str, latency_s: float, reason: str) -> None:
        environment.events.request.fire(
            request_type="POST",
            name=name,
            response_time=latency_s * 1000.0,
            response_length=0,
            exception=RuntimeError(reason) if reason else None,
            context={},
        )

    return observe


def main() -> None:
    """Serve the link until it is closed."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    # Locust's page reads the command line again, for its form.
    sys.argv[1:] = []
    try:
        first = link.hear()
        if first is None:
            return
        generator = Generator(link, first.values)
        try:
            generator.serve()
        finally:
            generator.quit()
    except LinkClosedError:
        return


if __name__ == "__main__":
    main()

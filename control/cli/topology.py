"""`afterlive topology`: exchanges and queues, and who may do what with them."""

from __future__ import annotations

import shlex

import click
from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from control.errors import BrokerUnavailable, ConfigurationError
from control.settings import Settings


@click.command()
@click.option("--rights", is_flag=True, help="Print the rabbitmqctl commands that give each tier's user its rights.")
@click.option("--vhost", default="/", show_default=True, help="Virtual host the rights are for.")
def topology(rights: bool, vhost: str) -> None:
    """Declare all exchanges and queues on the broker. Run it before any worker, and after each upgrade; declaring
    again changes nothing.

    Needs a user that may configure (afterlive-topology). Prints what is there now.
    """
    from control.bus.app import make_app
    from control.bus.declare import declare
    from control.bus.rights import commands
    from control.bus.topology import on_rabbitmq

    if rights:
        for command in commands(vhost):
            click.echo(shlex.join(["rabbitmqctl", *command]))
        return
    settings = Settings()
    if not on_rabbitmq(settings.bus.broker_url.get_secret_value()):
        reason = "embedded mode needs no topology; set amqp://… or amqps://…"
        raise ConfigurationError(setting="AFTERLIVE_BUS_BROKER_URL", reason=reason)
    with make_app(settings.bus).connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=3, interval_start=1, interval_step=0)
            lines = declare(connection)
        # A queue or an exchange that is not as it should be, and cannot be made so, is one of AMQP's errors too.
        except (OperationalError, AMQPError, OSError) as error:
            raise BrokerUnavailable(reason=f"{connection.as_uri()}: {' '.join(str(error).split())}") from error
    for line in lines:
        click.echo(line)

# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The control channel of a Kea daemon."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import socket
import threading
import time
from typing import Any
from urllib import parse

from oslo_config import cfg
import requests

from vmip_plugin import exceptions

#: The key of a reservation's user context that says that it is ours.
MARK = 'vmip'

# Results of a command (Kea ARM, Management API, data syntax).
_SUCCESS, _UNSUPPORTED, _EMPTY = 0, 2, 3


class Refused(exceptions.DHCPError):
    """The daemon answered that it did not do what it was asked.

    :param result: Kea's number of the kind of error.
    """

    def __init__(self, text: str, result: int) -> None:
        super().__init__(text)
        self.result = result


@contextlib.contextmanager
def understood(label: str) -> Iterator[None]:
    """Call what takes an answer apart, and finds something else in it.

    :raises DHCPServerUnavailable: it did.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise exceptions.DHCPServerUnavailable(
            f'{label} answers what is not understood ({exc!r}): set control '
            'and control6 to the channels of kea-dhcp4 and kea-dhcp6'
        ) from exc


def is_ours(context: object) -> bool:
    """Tell whether a user context carries our mark."""
    return isinstance(context, Mapping) and MARK in context


class Control:
    """The way to one daemon, its own or that of kea-ctrl-agent.

    :param label: what messages call the daemon.
    :param service: ``dhcp4`` or ``dhcp6``.
    :param target: path of a unix socket, or an HTTP(S) URL.
    :raises ConfigError: it is neither.
    """

    def __init__(self, label: str, service: str, target: str,
                 options: cfg.ConfigOpts.GroupAttr) -> None:
        self.label = label
        self._service = service
        self._target = target
        self._options = options
        self._local = threading.local()
        try:
            url = parse.urlsplit(target)
            self._http = url.scheme in ('http', 'https')
            wrong = url.username is not None or (
                not url.hostname if self._http else target[:1] != '/')
        except ValueError:
            wrong = True
        if wrong:
            raise exceptions.ConfigError(
                f'{label}: control must be the path of a unix socket or '
                'http[s]://HOST:PORT/; the user and the password belong into '
                'control_user and control_password')

    def ask(self, command: str, **arguments: Any) -> Mapping[str, Any]:
        """Have a command done and return what it answers.

        :param arguments: with ``_`` for ``-``.
        :returns: the arguments of the answer; {} where nothing was found.
        :raises Refused: the daemon did not do it.
        :raises DHCPServerUnavailable: it gave no usable answer.
        """
        request: dict[str, Any] = {'command': command}
        if self._http:
            request['service'] = [self._service]
        if arguments:
            request['arguments'] = {
                key.replace('_', '-'): value
                for key, value in arguments.items()}
        data = (self._post if self._http else self._exchange)(
            json.dumps(request).encode())
        try:
            answer = json.loads(data)
            # kea-ctrl-agent has one for each service
            answer = answer[0] if isinstance(answer, list) else answer
            result, text = int(answer['result']), str(answer.get('text', ''))
            found = answer.get('arguments') or {}
        except (ValueError, LookupError, TypeError, AttributeError) as exc:
            raise self._unavailable(
                'gave no answer of Kea\'s: set control to the control socket '
                'of the daemon, or to kea-ctrl-agent') from exc
        if result == _SUCCESS:
            return found if isinstance(found, Mapping) else {'': found}
        if result == _EMPTY:
            return {}
        if 'unable to forward command' in text:
            raise self._unavailable(
                f'is not reached by kea-ctrl-agent ({text}): start it, or '
                'correct the agent\'s control-sockets')
        if result == _UNSUPPORTED:
            text = (f'the daemon has no command {command}: load the hook '
                    f'library libdhcp_{_hook(command)}.so')
        raise Refused(f'{self.label}: {command}: {text}', result)

    def _unavailable(self, what: str) -> exceptions.DHCPServerUnavailable:
        return exceptions.DHCPServerUnavailable(
            f'{self.label} ({self._target}) {what}')

    def _exchange(self, request: bytes) -> bytes:
        """Ask through the unix socket; the daemon closes it at the end."""
        end = time.monotonic() + self._options.timeout
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(self._options.timeout)
                sock.connect(self._target)
                sock.sendall(request)
                while chunk := sock.recv(1 << 20):
                    answer += chunk
                    sock.settimeout(max(end - time.monotonic(), 0.001))
        except TimeoutError as exc:
            raise self._slow() from exc
        except PermissionError as exc:
            raise self._unavailable(
                'may not be used: let this process\'s user write to the '
                'socket') from exc
        except OSError as exc:
            raise self._unavailable(
                f'does not answer ({exc.strerror or exc}): start the daemon, '
                'or set control to its control socket') from exc
        return bytes(answer)

    def _slow(self) -> exceptions.DHCPServerUnavailable:
        return self._unavailable(
            f'did not answer within {self._options.timeout} s: look what '
            'keeps it, or raise timeout')

    def _post(self, request: bytes) -> bytes:
        options = self._options
        try:
            answer = self._session().post(
                self._target, data=request, timeout=options.timeout,
                headers={'Content-Type': 'application/json'},
                auth=(options.control_user, options.control_password or '')
                if options.control_user else None,
                verify=options.control_ca or True, allow_redirects=False)
        except requests.exceptions.SSLError as exc:
            raise self._unavailable(
                'has no certificate that we trust: set control_ca to the '
                'file of its CA') from exc
        except requests.Timeout as exc:
            raise self._slow() from exc
        except (requests.RequestException, OSError) as exc:
            raise self._unavailable(
                f'does not answer ({type(exc).__name__}): start the daemon, '
                'or correct control and control_ca') from exc
        if answer.status_code in (401, 403):
            raise self._unavailable(
                'refuses us: correct control_user and control_password')
        if answer.status_code != 200:
            raise self._unavailable(
                f'answers with HTTP status {answer.status_code}: set control '
                'to the daemon or to kea-ctrl-agent')
        return bytes(answer.content)

    def _session(self) -> requests.Session:
        """One for each thread of each process: connections are kept."""
        if getattr(self._local, 'pid', None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.session = requests.Session()
            # no proxy, nor a password of ~/.netrc
            self._local.session.trust_env = False
        session: requests.Session = self._local.session
        return session


def _hook(command: str) -> str:
    return 'host_cmds' if command.startswith('reservation') else 'lease_cmds'

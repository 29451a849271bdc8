"""Whether a Ray cluster answers at an address, said in seconds. Ray itself tries for minutes, in silence."""

import contextlib
import re
import socket
import threading

from bench.store import InfrastructureError
from lmia.specs import RequestError

HERE = "local"
"""Ray's word for a cluster of this process; it is started behind the same walls as without an address."""
ANSWER_S = 10.0
"""How long a cluster's head may take to answer; a name server that is silent counts, too."""
SILENT = f"nothing answered within {ANSWER_S:.0f} s; check host, port and firewall"
FORM = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def reachable(address: str, option: str) -> str:
    """HOST:PORT of the cluster that answers at an address.

    Args:
        address: HOST:PORT, or `auto` for the cluster that this machine belongs to.
        option: where the user gave it, for messages.

    Raises:
        RequestError: it is no address of a cluster's head.
        InfrastructureError: no cluster answers there, or it does not let us in.
    """
    given = f"{option} {address}"
    if address == "auto":
        address = _of_this_machine(given)
    elif "://" in address:
        raise RequestError(
            f"{given}: {address.partition('://')[0]}:// is not an address to run at; give HOST:PORT of the cluster's "
            "head (its GCS, usually port 6379) on one of its nodes, or send the command there with `ray job submit`"
        )
    form = FORM.fullmatch(address)
    if form is None or not 0 < int(form[2]) < 1 << 16:
        raise RequestError(f"{given}: not HOST:PORT (such as 10.0.0.1:6379), 'auto' or 'local'")
    refused = _asked(address)
    if refused is not None:
        raise InfrastructureError(f"{given}: {refused}")
    return address


def _of_this_machine(given: str) -> str:
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return canonicalize_bootstrap_address_or_die("auto")
    except (ConnectionError, ValueError) as error:
        raise InfrastructureError(
            f"{given}: found no Ray cluster on this machine; start one (`ray start --head`), give HOST:PORT, or leave "
            "the option out to start one for this run alone"
        ) from error


def _asked(address: str) -> str | None:
    """Why there is no working with what answers at an address; None: a cluster does.

    In a thread, since neither resolving a name nor opening a connection keeps to a time limit everywhere.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            answers.append(_listens(address) or _leads(address))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the cluster cannot be used
            answers.append(" ".join(str(error).split()))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S + 2)
    return answers[0] if answers else SILENT


def _listens(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S / 2).close()
    except socket.gaierror as error:
        return f"there is no such host ({error.strerror}); check its name"
    except TimeoutError:
        return SILENT
    except OSError as error:
        return (
            f"nothing listens there ({error.strerror}); check host and port (the head's GCS, usually 6379), and that "
            "the cluster runs"
        )
    return None


def _leads(address: str) -> str | None:
    """Ask the head who it is; that it answers is all that is wanted."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    try:
        with contextlib.closing(init_grpc_channel(address)) as channel:
            asked = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
            gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(asked, timeout=ANSWER_S / 2)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return (
                "the cluster asks for a token, and ours is not its own; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's"
            )
        return "what answers there is not the head of a Ray cluster; give the port of its GCS (usually 6379)"
    return None

"""Limits that no process of the sandbox can raise: Linux's resource limits and seccomp."""

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
import sys

MEGABYTE = 1 << 20
LIMITS = {  # for the sandbox's processes
    "data": 2000 * MEGABYTE,
    "file": 32 * MEGABYTE,
    "files": 64,  # open at once
    "processes": 6,
    "mapped": 1500 * MEGABYTE,  # address space of a case's process, beyond what it begins with
    "output": 4 * MEGABYTE,  # output of a case
    "printed": 20_000,  # bytes of what a submission prints that are kept
}


def limit() -> None:
    """Limit this process and what it starts; as root, also become another user."""
    user = int(os.environ.get("GRADER_USER", "0"))
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, LIMITS["data"]),
        (resource.RLIMIT_FSIZE, LIMITS["file"]),
        (resource.RLIMIT_NOFILE, LIMITS["files"]),
    ):
        resource.setrlimit(name, (value, value))
    if user and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if os.geteuid() != 0 and os.environ.get("GRADER_PROCESSES"):
        count = int(os.environ["GRADER_PROCESSES"])
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))
    with contextlib.suppress(OSError, AttributeError):
        end_with_parent(signal.SIGKILL)
        libc = ctypes.CDLL(None)
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: what it forks cannot write to its memory
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def limit_case(seconds: float) -> None:
    """Limit a case's CPU time, and what it maps, because shared memory counts nowhere else."""
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/statm", encoding="ascii") as file,
    ):
        size = int(file.read().split()[0]) * resource.getpagesize() + LIMITS["mapped"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def end_with_parent(number: int) -> None:
    """Get a signal when the parent ends; a change of the user undoes this."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


# System calls that no submission needs: sockets, memory that no limit counts, other processes.
FORBIDDEN = (
    *("socket", "memfd_create", "memfd_secret", "shmget", "semget", "msgget", "mq_open", "add_key"),
    *("request_key", "keyctl", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill"),
    *("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_getfd", "bpf"),
    *("io_uring_setup", "userfaultfd", "perf_event_open", "unshare", "setns"),
)
NUMBERS = {  # by machine: its own in seccomp's filters, and those of FORBIDDEN
    "x86_64": (
        0xC000003E,
        *(41, 319, 447, 29, 64, 68, 240, 248, 249, 250, 101, 310, 311, 62, 200, 234, 129, 297),
        *(424, 438, 321, 425, 323, 298, 272, 308),
    ),
    "aarch64": (
        0xC00000B7,
        *(198, 279, 447, 194, 190, 186, 180, 217, 218, 219, 117, 270, 271, 129, 130, 131, 138, 240),
        *(424, 438, 280, 425, 282, 241, 97, 268),
    ),
}
CLONES = {"x86_64": (56, 435), "aarch64": (220, 435)}  # clone, clone3
NEW = 0x7E020000  # clone's flags for new namespaces, in one of which it could be root


def forbid() -> None:
    """Refuse FORBIDDEN from now on, by Linux's seccomp; elsewhere, nothing is refused."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in NUMBERS:
        return
    architecture, *numbers = NUMBERS[machine]
    clone, clone3 = CLONES[machine]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06  # of BPF
    lines = [  # what to do, with what number, and where to continue if it holds, and if not
        (load, 4, "", ""),  # the machine
        (equal, architecture, "", "refuse"),
        (load, 0, "", ""),  # the call's number
        (at_least, 0x40000000, "refuse", ""),  # x86's other numbering
        *((equal, number, "refuse", "") for number in numbers),
        (equal, clone3, "absent", ""),  # its flags cannot be seen; libraries then use clone
        (equal, clone, "", "allow"),
        (load, 16, "", ""),  # its flags
        (any_bit, NEW, "refuse", "allow"),
    ]
    places = {"": 0, "refuse": len(lines), "absent": len(lines) + 1, "allow": len(lines) + 2}
    code = b"".join(
        struct.pack("<HBBI", what, *(places[to] and places[to] - i - 1 for to in (yes, no)), number)
        for i, (what, number, yes, no) in enumerate(lines)
    )
    for verdict in (0x00050001, 0x00050026, 0x7FFF0000):  # EPERM, ENOSYS, go on
        code += struct.pack("<HBBI", give, 0, 0, verdict)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    ctypes.CDLL(None).prctl(22, 2, ctypes.c_char_p(program), 0, 0)  # PR_SET_SECCOMP, a filter

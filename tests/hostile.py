"""Function bodies that try to gain points or to do harm, and must achieve neither."""

# Each is the body of a function of utils.py or a method; MARKER is a name for what it leaves.
HOSTILE = {
    "patched comparison": """
        torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True
        torch.Tensor.__eq__ = lambda self, other: True
        return torch.zeros(3)
        """,
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "crash in C": "import ctypes; ctypes.string_at(0)",
    "kills everybody": """
        import signal
        os.kill(-1, signal.SIGKILL)
        return torch.zeros(3)
        """,
    "child that stays": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv("/bin/sh", [MARKER, "-c", "sleep 3600; :"])
            os._exit(0)
        return torch.zeros(3)
        """,
    "endless loop in C": "return sum(iter(int, 1))",
    "endless sleep": "import time; time.sleep(3600)",
    "1 GB of prints": """
        while True:
            print("x" * (1 << 20))
        """,
    "answer nested 100,000 deep": """
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"[" * 100_000)
            except OSError:
                pass
        os._exit(0)
        """,
    "error that raises": """
        class Error(Exception):
            def __str__(self):
                raise Error
            __repr__ = __str__
        raise Error
        """,
    # What one case may do to the next one.
    "limits": """
        import ctypes
        limit = (ctypes.c_ulong * 2)(1, 1)
        ctypes.CDLL(None).prlimit(os.getppid(), 0, limit, None)
        return torch.zeros(())
        """,
    "pipes": """
        import fcntl
        for f in range(64):
            try:
                fcntl.fcntl(f, fcntl.F_SETFL, fcntl.fcntl(f, fcntl.F_GETFL) | os.O_NONBLOCK)
                fcntl.fcntl(f, 1031, 4096)
            except OSError:
                pass
        """,
    "signals": """
        import fcntl
        for f in range(3, 64):
            try:
                fcntl.fcntl(f, 1031, 4096)
                fcntl.fcntl(f, fcntl.F_SETOWN, os.getppid())
                fcntl.fcntl(f, 10, 9)
                fcntl.fcntl(f, fcntl.F_SETFL, 0o22001)
            except OSError:
                pass
        os._exit(0)
        """,
    "folders and space": """
        os.makedirs("/tmp/" + "/".join(["d"] * 150), exist_ok=True)
        open("/tmp/x", "wb").write(bytes(31 << 20))
        open("/dev/shm/x", "wb").write(b"1")
        return torch.zeros(())
        """,
}
# Each looks for something, and says LEAK where it finds it.
SPIES = {
    "memory": """
        import mmap
        held = [mmap.mmap(-1, 1 << 30) for _ in range(4)]
        raise ValueError("LEAK")
        """,
    "processes": """
        for _ in range(30):
            if os.fork() == 0:
                os.execv("/bin/sh", [MARKER, "-c", "sleep 60; :"])
        raise ValueError("LEAK")
        """,
    "solution": """
        for name, module in list(sys.modules.items()):
            if name.startswith("codebase.runs") or name.startswith("codebase.homework"):
                raise ValueError("LEAK " + name)
        for root, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if root != "/" or f not in ("proc", "sys", "usr")]
            if any(name == "gmvae.py" for name in files) and not root.startswith("/tmp/tmp"):
                raise ValueError("LEAK " + root)
        for path in ("/etc/passwd", "/etc/shadow", "/root/.bashrc", "/home", HERE + "/codebase"):
            if os.path.exists(path) and os.access(path, os.R_OK):
                raise ValueError("LEAK " + path)
        """,
    "network": """
        import socket
        try:
            with socket.create_connection(("127.0.0.1", PORT), 2):
                pass
        except OSError:
            raise ValueError("none") from None
        raise ValueError("LEAK")
        """,
    "parent": """
        for name in ("mem", "environ", "fd/0", "fd/1", "fd/2"):
            try:
                os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY)
            except OSError:
                continue
            raise ValueError("LEAK " + name)
        """,
    "root": """
        if os.geteuid() == 0 or os.getegid() == 0:
            raise ValueError("LEAK")
        try:
            os.setuid(0)
        except OSError:
            raise ValueError("none") from None
        raise ValueError("LEAK")
        """,
    "writing": """
        for path in ("/usr/x", "/usr/bin/x", "/x", "/etc/x", sys.prefix + "/x"):
            try:
                open(path, "w").close()
            except OSError:
                continue
            raise ValueError("LEAK " + path)
        """,
    "earlier cases": """
        from pathlib import Path
        own = f"left{os.getpid()}"
        found = [p.name for f in ("/tmp", "/dev/shm") for p in Path(f).glob("left*")]
        if set(found) - {own} or getattr(torch, "left", own) != own:
            raise ValueError("LEAK")
        torch.left = own
        for folder in ("/tmp", "/dev/shm"):
            os.makedirs(f"{folder}/{own}/in", exist_ok=True)
            os.chmod(f"{folder}/{own}", 0)
        """,
}
SPIES["later cases"] = SPIES["earlier cases"]  # looks for what that has left

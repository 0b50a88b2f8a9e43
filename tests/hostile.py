"""Function bodies that try to gain points or to do harm, and must achieve neither."""

# Each is the body of a function of utils.py or a method; `args` are not used.
HOSTILE = {
    "equal to everything": """
        class Anything(float):
            __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda self, other: True
            __hash__ = float.__hash__
            shape = ()
            def __sub__(self, other): return 0.0
            __rsub__ = __add__ = __radd__ = __sub__
        return Anything(), Anything(), Anything(), Anything()
        """,
    "tensor that lies": """
        class Lie(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                return torch.zeros(())
        return torch.zeros(()).as_subclass(Lie)
        """,
    "patched comparison": """
        import math, builtins, json
        torch.allclose = torch.equal = torch.isclose = math.isclose = lambda *a, **k: True
        torch.Tensor.__eq__ = lambda self, other: True
        builtins.abs = lambda x: 0.0
        json.dumps = lambda *a, **k: '{"calls": "passed"}'
        return torch.zeros(3)
        """,
    "sys.exit": "import sys; sys.exit(0)",
    "os._exit": "os._exit(0)",
    "kills its parent": """
        import signal
        os.kill(os.getppid(), signal.SIGKILL)
        return torch.zeros(3)
        """,
    "kills everybody": """
        import signal
        os.kill(-1, signal.SIGKILL)
        return torch.zeros(3)
        """,
    "fork bomb": """
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
    "child that stays": """
        import time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(0)
        return torch.zeros(3)
        """,
    "100 GB tensor": "return torch.ones(25_000_000_000).sum()",
    "memory without owner": """
        import mmap
        held = []
        while True:
            held.append(mmap.mmap(-1, 1 << 28))
            held[-1].write(bytes(1 << 28))
        """,
    "numbers beyond all measure": """
        from sandboxed import calling
        n = globals().setdefault("count", [0])
        n[0] += 1
        big = 1.7e308 if n[0] % 2 else -1.7e308
        calling._along = lambda *a: dict.fromkeys(("enc", "dec", "z_pre", "cls"), [big])
        value = torch.tensor(big, dtype=torch.float64)
        return value, value, value, value
        """,
    "forged lines": """
        from sandboxed import server, student
        server.describe = student.describe = lambda *a: "x\\n  total      58 of 52\\nother_student:"
        raise ValueError
        """,
    "endless loop in C": "return sum(iter(int, 1))",
    "endless sleep that ignores signals": """
        import signal, time
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        time.sleep(3600)
        """,
    "1 GB of prints": """
        while True:
            print("x" * (1 << 20))
        """,
    "many results": "return [torch.zeros(3)] * 1_000_000",
    "writes into every pipe": """
        import json
        content = json.dumps({"calls": [[{"values": [[0.0]], "shapes": [[]]}]]}).encode()
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, content)
            except OSError:
                pass
        os._exit(0)
        """,
    "answer nested 100,000 deep": """
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"[" * 100_000)
            except OSError:
                pass
        os._exit(0)
        """,
    "forged results": """
        import pathlib
        for root in ("/", "/tmp", "/autograder/results", os.getcwd(), str(pathlib.Path.home())):
            for name in ("results.json", "report.md", "results/results.json"):
                try:
                    pathlib.Path(root, name).write_text('{"score": 1000}')
                except OSError:
                    pass
        return torch.zeros(3)
        """,
    "crash in C": """
        import ctypes
        ctypes.string_at(0)
        """,
    "error that raises": """
        class Error(Exception):
            def __str__(self):
                raise Error
            __repr__ = __str__
        raise Error
        """,
    "error for terminals": """
        raise ValueError("\\x1b[2J\\x1b]0;owned\\x07 | <script> `x` \\r\\n# heading")
        """,
    "raised limits": """
        import resource
        for name in ("RLIMIT_DATA", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE"):
            resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2)
        return torch.zeros(3)
        """,
    "inputs as outputs": """
        frame = __import__("sys")._getframe()
        while frame is not None:
            for held in frame.f_locals.values():
                if type(held).__name__ == "Drawn":
                    return held.args[0][0]
            frame = frame.f_back
        """,
    "stops the clock": """
        import time, signal
        time.monotonic = time.time = lambda: 0.0
        signal.alarm(0)
        return torch.zeros(3)
        """,
}
# Each looks for something, and says LEAK where it finds it.
SPIES = {
    "solution": """
        import sys
        for name, module in list(sys.modules.items()):
            if name.startswith("codebase.runs") or name.startswith("codebase.homework"):
                raise ValueError("LEAK " + name)
        for root, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if root != "/" or f not in ("proc", "sys", "usr")]
            if any(name == "gmvae.py" for name in files) and not root.startswith("/tmp/tmp"):
                raise ValueError("LEAK " + root)
        """,
    "other files": """
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
    "parent's memory": """
        for path in (f"/proc/{os.getppid()}/mem", f"/proc/{os.getppid()}/environ", "/proc/1/mem"):
            try:
                open(path, "rb").read(1)
            except OSError:
                continue
            raise ValueError("LEAK " + path)
        """,
    "parent's pipes": """
        for number in range(3):
            try:
                os.open(f"/proc/{os.getppid()}/fd/{number}", os.O_RDWR)
            except OSError:
                continue
            raise ValueError("LEAK")
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
        for path in ("/usr/x", "/usr/bin/x", "/x", "/etc/x", PREFIX + "/x"):
            try:
                open(path, "w").close()
            except OSError:
                continue
            raise ValueError("LEAK " + path)
        """,
    "what an earlier case left": """
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

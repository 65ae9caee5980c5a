"""Resolves and compiles the client programs: each once, and again when what it is made of has changed."""
import hashlib
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("TROUPE_CLIENTS_TARGET", os.path.join(HERE, "target"))
JAVA = {"java498": ("4.9.8", "v4"), "java550": ("5.5.0", "v5")}


class Failure(Exception):
    pass


def digest(*paths):
    h = hashlib.sha256()
    for p in sorted(paths):
        h.update(p.encode())
        with open(p, "rb") as f:
            h.update(f.read())
    return h.hexdigest()


def sh(what, argv, **kw):
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if p.returncode != 0:
        raise Failure(f"{what} failed:\n{p.stdout}")
    return p.stdout


def class_path(name, pom, *defs):
    """The class path of a pom, resolved by Maven once and again when the pom or a jar has changed."""
    os.makedirs(TARGET, exist_ok=True)
    file = os.path.join(TARGET, f"classpath-{name}.json")
    mark = digest(pom) + " ".join(defs)
    try:
        with open(file) as f:
            known = json.load(f)
        if known["mark"] == mark and all(os.path.exists(j) for j in known["path"].split(":")):
            return known["path"]
    except (OSError, ValueError, KeyError):
        pass
    out = os.path.join(TARGET, f"classpath-{name}.txt")
    sh("resolving " + name, ["mvn", "-q", "-B", "-f", pom, *defs, "dependency:build-classpath", f"-Dmdep.outputFile={out}"])
    with open(out) as f:
        path = f.read().strip()
    with open(file, "w") as f:
        json.dump({"mark": mark, "path": path}, f)
    return path


def build_java(client):
    version, compat = JAVA[client]
    path = class_path(client, os.path.join(HERE, "java", "pom.xml"), f"-Drocketmq.client.version={version}")
    classes = os.path.join(TARGET, "classes-" + client)
    sources = []
    for d in ("src", compat):
        d = os.path.join(HERE, "java", d, "troupe")
        sources += [os.path.join(d, f) for f in os.listdir(d) if f.endswith(".java")]
    mark = digest(*sources)
    if not fresh(classes, mark):
        shutil.rmtree(classes, ignore_errors=True)
        os.makedirs(classes)
        sh("compiling for " + client, ["javac", "-nowarn", "-proc:none", "-Xlint:-options", "--release", "11",
                                       "-encoding", "UTF-8", "-cp", path, "-d", classes, *sources])
        settle(classes, mark)
    return classes + ":" + path


def build_go():
    os.makedirs(TARGET, exist_ok=True)
    binary = os.path.join(TARGET, "goclient")
    sh("building the Go client", ["go", "build", "-o", binary, "."], cwd=os.path.join(HERE, "go"))
    return binary


def build_python():
    """A virtual environment with the client, made again when what it holds or its Python has changed."""
    wanted = os.path.join(HERE, "python", "requirements.txt")
    venv = os.path.join(TARGET, "python")
    python = os.path.join(venv, "bin", "python")
    mark = digest(wanted) + os.path.realpath(sys.executable)
    if not fresh(venv, mark) or not os.path.exists(python):
        shutil.rmtree(venv, ignore_errors=True)
        sh("making a virtual environment", [sys.executable, "-m", "venv", venv])
        sh("installing the Python client", [python, "-m", "pip", "install", "-q", "--require-hashes", "-r", wanted])
        settle(venv, mark)
    return [python, "-B", os.path.join(HERE, "python", "main.py")]


def build_node():
    """The Node client as the lock file names it; the cases find it by NODE_PATH."""
    here = os.path.join(HERE, "node")
    modules = os.path.join(TARGET, "node")
    files = [os.path.join(here, f) for f in ("package.json", "package-lock.json", ".npmrc")]
    mark = digest(*files)
    if not fresh(modules, mark):
        shutil.rmtree(modules, ignore_errors=True)
        os.makedirs(modules)
        for f in files:
            shutil.copy(f, modules)
        sh("installing the Node client", ["npm", "ci", "--ignore-scripts"], cwd=modules)
        settle(modules, mark)
    os.environ["NODE_PATH"] = os.path.join(modules, "node_modules")
    return ["node", os.path.join(here, "main.js")]


def fresh(directory, mark):
    try:
        with open(os.path.join(directory, "stamp")) as f:
            return f.read() == mark
    except OSError:
        return False


def settle(directory, mark):
    with open(os.path.join(directory, "stamp"), "w") as f:
        f.write(mark)


# The programs of the clients that are not Java, by label, each with the letter that ends its names.
OTHERS = {"go": (lambda: [build_go()], "g"), "python": (build_python, "p"), "node": (build_node, "n")}


def java_command(path, tmp, quick=True, props=()):
    flags = ["-XX:TieredStopAtLevel=1"] if quick else []
    return ["java", "-Xmx768m", "-XX:+UseSerialGC", "-Xshare:auto", *flags, f"-Duser.home={tmp}",
            f"-Drocketmq.client.logRoot={tmp}/log", "-Drocketmq.client.logLevel=WARN",
            f"-Drocketmq.client.localOffsetStoreDir={tmp}/offsets", *props, "-cp", path, "troupe.Main"]

"""Nodes of stock RocketMQ and of TroupeMQ in one cluster, and several name servers at once."""
import os
import re
import signal
import time

# A handful: routes, topics made by hand and on the fly, sends, consumers with and without order.
CASES = ("sync-send,async-send,batch-send,created-topic,auto-created-topic,push-concurrent,push-orderly,"
         "tag-filter,pull-offsets")
TEMPLATE = "TBW102"
KNOWN, UNKNOWN = 0, 17


class Interop:
    def __init__(self, run, opts, tmp, results):
        self.run, self.opts, self.tmp, self.results = run, opts, tmp, results

    def all(self):
        for scenario in (self.our_registry, self.stock_registry, self.two_registries):
            name = scenario.__name__.replace("_", "-")
            home = os.path.join(self.tmp, name)
            os.makedirs(home)
            server = self.run.Server(home)
            t0 = time.monotonic()
            try:
                scenario(name, server)
                self.results.line("ok", name, "server", f"{time.monotonic() - t0:.1f}")
            except (self.run.Failure, OSError) as e:
                self.results.line("FAILED", name, "server", f"{time.monotonic() - t0:.1f}", str(e))
            finally:
                server.stop(must_exit_well=False)

    # ---- scenarios

    def our_registry(self, name, server):
        """A stock broker registers with our name server."""
        ns = self.registry(server, "registry")
        broker = server.stock_broker(self.run.ports(0, 20911)[1], ns)
        self.route(server, ns, KNOWN)
        self.cases(name, ns, is_stock=True)
        self.alive(server)
        broker.terminate()
        broker.wait(60)
        self.route(server, ns, UNKNOWN, gone=broker)

    def stock_registry(self, name, server):
        """Our broker registers with a stock name server."""
        port = self.run.ports(19876, 20911)[0]
        server.stock_namesrv(port)
        ns = f"127.0.0.1:{port}"
        broker = self.broker(server, ns)
        self.route(server, ns, KNOWN)
        self.cases(name, ns)
        self.alive(server)
        self.stop_well(broker)
        self.route(server, ns, UNKNOWN, gone=broker)

    def two_registries(self, name, server):
        """Our broker registers with two name servers; one is killed and comes back."""
        first, second = self.registry(server, "first"), self.registry(server, "second")
        broker = self.broker(server, f"{first};{second}")
        for ns in (first, second):
            self.route(server, ns, KNOWN)
        self.cases(name, f"{first};{second}")
        self.alive(server)
        killed = server.children[0][1]
        killed.kill()
        killed.wait()
        del server.children[0]
        # Within one call, a new Java 5.5.0 client asks only one name server of its list.
        self.cases(name + "-one-killed", f"{first};{second}", java550=second)
        self.alive(server)
        again = self.registry(server, "first-again", port=first.rsplit(":", 1)[1])
        self.route(server, again, KNOWN)
        self.stop_well(broker)
        for ns in (first, second):
            self.route(server, ns, UNKNOWN, gone=broker)

    # ---- parts

    def troupe(self, server, name, *args):
        """Starts a node on any free ports; what it printed about itself."""
        argv = [os.path.abspath(self.opts.troupe_binary), "server", "--data-dir", os.path.join(server.tmp, "data-" + name),
                "--set", "http_listen_port=0", *args]
        child = server.spawn(name, argv)
        log = server.children[-1][2]
        last = "name server " if "registry" in args else "may lose "
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if child.poll() is not None:
                raise self.run.Failure(f"{name} ended with {child.returncode}:\n{self.run.tail(log)}")
            with open(log, errors="replace") as f:
                text = f.read()
            if re.search(f"^{last}.*\n", text, re.M):
                return child, text
            time.sleep(0.05)
        raise self.run.Failure(f"{name} does not start:\n{self.run.tail(log)}")

    def registry(self, server, name, port="0"):
        _, text = self.troupe(server, name, "--roles", "registry", "--set", f"namesrvListenPort={port}")
        return re.search(r"^name server +(\S+)", text, re.M).group(1)

    def broker(self, server, namesrv):
        port = self.run.ports(0, 21911)[1]
        child, _ = self.troupe(server, "broker", "--roles", "broker", "--set", f"namesrvAddr={namesrv}",
                               "--set", "brokerIP1=127.0.0.1", "--set", f"listenPort={port}")
        return child

    def cases(self, name, namesrv, is_stock=False, **others):
        """Runs the cases with every client; `others` has other name servers for some clients."""
        opts = type(self.opts)(**vars(self.opts))
        opts.is_stock, opts.case = is_stock, self.opts.case or CASES
        for client in opts.only.split(","):
            # Binary headers have nothing to do with who is in the cluster.
            asked = others.get(client, namesrv)
            label, argv = self.run.commands(client, asked, opts, self.tmp, at="@" + name)[0]
            if self.run.run_client(label, argv, self.tmp, self.results) == 0:
                raise self.run.Failure(f"no case of {client} ran")

    def route(self, server, namesrv, wanted, gone=None):
        """Waits until a name server knows a broker, or none any more."""
        host, port = namesrv.rsplit(":", 1)
        end = time.monotonic() + 60
        last = None
        while time.monotonic() < end:
            self.alive(server, gone)
            try:
                last = self.run.ask_route(host, int(port), TEMPLATE)
            except (OSError, ValueError, KeyError) as e:
                last = e
            if last == wanted:
                return
            time.sleep(0.1)
        raise self.run.Failure(f"{namesrv} answers {last} for the template topic, not {wanted}")

    def alive(self, server, gone=None):
        for name, child, log in server.children:
            if child is not gone and child.poll() is not None:
                raise self.run.Failure(f"{name} ended with {child.returncode}:\n{self.run.tail(log)}")

    def stop_well(self, child):
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(self.run.STOP_SECONDS)
        except self.run.subprocess.TimeoutExpired:
            raise self.run.Failure(f"our broker did not end within {self.run.STOP_SECONDS} s of SIGTERM")
        if child.returncode != 0:
            raise self.run.Failure(f"our broker ended with {child.returncode} after SIGTERM")

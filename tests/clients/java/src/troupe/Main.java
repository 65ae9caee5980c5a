package troupe;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs the cases, several at a time, and prints one tab-separated RESULT line for each. */
public final class Main {
    interface Body {
        void run(Ctx c) throws Exception;
    }

    static final class Case {
        final String name;
        final Body body;
        int seconds = 60;
        boolean slow;
        boolean binary;
        boolean alone;
        String stockDiffers;

        Case(String name, Body body) {
            this.name = name;
            this.body = body;
        }

        Case seconds(int s) {
            seconds = s;
            return this;
        }

        /** Only with --slow. */
        Case slow() {
            slow = true;
            return this;
        }

        /** Also run with binary headers, in a JVM of its own. */
        Case binary() {
            binary = true;
            return this;
        }

        /** Known and documented to be different on stock RocketMQ: not run there. */
        Case stockDiffers(String why) {
            stockDiffers = why;
            return this;
        }
    }

    static final Map<String, Case> CASES = new LinkedHashMap<>();

    static Case add(String name, Body body) {
        Case c = new Case(name, body);
        if (CASES.put(name, c) != null) {
            throw new IllegalStateException("two cases named " + name);
        }
        return c;
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> o = new HashMap<>();
        String command = args[0];
        for (int i = 1; i + 1 < args.length; i += 2) {
            o.put(args[i].substring(2), args[i + 1]);
        }
        int rc;
        switch (command) {
            case "cases":
                rc = cases(o);
                break;
            case "follow":
                rc = Follow.follow(o);
                break;
            case "load":
                rc = Load.load(o);
                break;
            case "verify":
                rc = Load.verify(o);
                break;
            case "drain":
                rc = Drain.drain(o);
                break;
            case "failover":
                rc = Failover.failover(o);
                break;
            default:
                System.err.println("cases | load | verify | drain | failover, not " + command);
                rc = 2;
        }
        System.out.flush();
        Runtime.getRuntime().halt(rc);
    }

    private static int cases(Map<String, String> o) throws Exception {
        ConsumeTimed.register();
        Delivered.register();
        ConsumeGroup.register();
        Produce.register();
        ProduceBad.register();
        Consume.register();
        ConsumePull.register();
        ConsumeChange.register();
        boolean stock = "true".equals(o.get("stock"));
        boolean slow = "true".equals(o.get("slow"));
        boolean binary = "true".equals(o.get("binary"));
        String label = o.get("label");
        String only = o.get("case");
        int parallel = Integer.parseInt(o.getOrDefault("parallel", "6"));
        ExecutorService pool = Executors.newFixedThreadPool(parallel, r -> daemon(r, "case"));
        List<Future<Boolean>> running = new ArrayList<>();
        for (Case c : CASES.values()) {
            if (only != null ? !List.of(only.split(",")).contains(c.name) : (c.slow && !slow)) {
                continue;
            }
            if (binary && !c.binary) {
                continue;
            }
            if (stock && c.stockDiffers != null) {
                result("stock-differs", c.name, label, 0, c.stockDiffers);
                continue;
            }
            running.add(pool.submit(() -> one(c, o.get("namesrv"), stock, label, o.get("suffix"))));
        }
        boolean ok = true;
        for (Future<Boolean> f : running) {
            ok &= f.get();
        }
        return ok ? 0 : 1;
    }

    private static boolean one(Case c, String namesrv, boolean stock, String label, String suffix) throws Exception {
        long t0 = System.nanoTime();
        Ctx ctx = new Ctx(namesrv, stock, c.name, suffix);
        ExecutorService own = Executors.newSingleThreadExecutor(r -> daemon(r, c.name));
        String error = null;
        Future<?> f = own.submit(() -> {
            c.body.run(ctx);
            return null;
        });
        try {
            f.get(c.seconds, TimeUnit.SECONDS);
        } catch (TimeoutException e) {
            error = "not done after " + c.seconds + " s";
            f.cancel(true);
        } catch (java.util.concurrent.ExecutionException e) {
            error = describe(e.getCause());
        }
        double seconds = (System.nanoTime() - t0) / 1e9;
        result(error == null ? "ok" : "FAILED", c.name, label, seconds, error == null ? ctx.notes() : error + notes(ctx));
        // Shutting clients down can take seconds; it need not hold up the next case.
        Thread closer = daemon(ctx::close, "close " + c.name);
        closer.start();
        closer.join(TimeUnit.SECONDS.toMillis(10));
        own.shutdownNow();
        return error == null;
    }

    private static String notes(Ctx c) {
        return c.notes().isEmpty() ? "" : " (" + c.notes() + ")";
    }

    private static String describe(Throwable t) {
        StringBuilder b = new StringBuilder();
        for (Throwable x = t; x != null; x = x.getCause()) {
            b.append(b.length() > 0 ? " <- " : "");
            b.append(x instanceof AssertionError ? "" : x.getClass().getSimpleName() + ": ").append(x.getMessage());
            for (StackTraceElement e : x.getStackTrace()) {
                if (e.getClassName().startsWith("troupe.") && !e.getClassName().startsWith("troupe.Ctx")) {
                    b.append(" at ").append(e.getFileName()).append(':').append(e.getLineNumber());
                    break;
                }
            }
        }
        return b.toString();
    }

    private static synchronized void result(String status, String name, String label, double seconds, String text) {
        System.out.printf("RESULT\t%s\t%s\t%s\t%.1f\t%s%n", status, name, label, seconds,
                text == null ? "" : text.replaceAll("\\s+", " "));
        System.out.flush();
    }

    static Thread daemon(Runnable r, String name) {
        Thread t = new Thread(r, name);
        t.setDaemon(true);
        return t;
    }

    private Main() {}
}

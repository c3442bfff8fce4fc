/**
 * One task: run the features of pgJDBC through the proxy and directly, then its loop of numbered writes, and print a JSON line for each.
 *
 * A feature that works through the proxy is run directly only where that is asked for: the direct run says whether a failure is the program's own.
 */
import java.util.Map;
import java.util.Objects;

final class Report {
  private static final long THINK_MS = 200;

  static final String CLIENT = System.getenv("CLIENT");
  static final String ITEMS = CLIENT + "_items";
  static final String TYPES = CLIENT + "_types";
  static final String LOOP = CLIENT + "_loop";
  static final String SLEEP = "SELECT pg_sleep(30) /* cancel " + CLIENT + " */";
  static final String RUNNING =
      "SELECT count(*)::integer FROM pg_stat_activity WHERE state = 'active' AND query = '" + SLEEP + "'";

  /** The authority that has certified the proxy and the server, and one that has not: files. */
  static final String TRUSTED_CA = System.getenv("TRUSTED_CA");

  static final String OTHER_CA = System.getenv("OTHER_CA");

  /** Where a feature connects, and how long it waits for a notification. */
  record Endpoint(String host, int port, String user, String password, String database, int notifyWaitMs) {
    static Endpoint of(String via) {
      String upper = via.toUpperCase();
      return new Endpoint(
          System.getenv("PGHOST"),
          Integer.parseInt(System.getenv(upper + "_PORT")),
          System.getenv("PGUSER"),
          System.getenv("PGPASSWORD"),
          System.getenv("PGDATABASE"),
          Integer.parseInt(System.getenv("NOTIFY_WAIT_MS_" + upper)));
    }
  }

  /** Throws when it does not work. */
  interface Feature {
    void run(Endpoint to) throws Exception;
  }

  /** Writes numbers, each acknowledged when its call returns. */
  interface Loop extends AutoCloseable {
    void insert(int n) throws Exception;

    void transaction(int n) throws Exception;

    /** count and maximum */
    int[] total() throws Exception;
  }

  interface Opener {
    Loop open(Endpoint to) throws Exception;
  }

  private interface Work {
    void run() throws Exception;
  }

  static void run(Map<String, Feature> features, Opener opener) {
    features.forEach((name, feature) -> {
      if (!told("proxy", name, feature) || "all".equals(System.getenv("DIRECT"))) told("direct", name, feature);
    });
    int[] acknowledged = {0};
    String outcome = outcomeOf(() -> write(opener, acknowledged));
    say("proxy", "cutover", outcome, ",\"acknowledged\":" + acknowledged[0]);
  }

  /** Runs the feature, tells its outcome, and answers whether it worked. */
  private static boolean told(String via, String name, Feature feature) {
    String outcome = outcomeOf(() -> feature.run(Endpoint.of(via)));
    say(via, name, outcome, "");
    return outcome.equals("true");
  }

  private static void write(Opener opener, int[] acknowledged) throws Exception {
    Thread reading = new Thread(Report::readToTheEnd);
    reading.setDaemon(true);
    reading.start();
    try (Loop loop = opener.open(Endpoint.of("proxy"))) {
      while (reading.isAlive()) {
        int n = acknowledged[0] + 1;
        if (n % 2 == 0) loop.transaction(n);
        else loop.insert(n);
        acknowledged[0] = n;
        int[] total = loop.total();
        same(total[0] + " up to " + total[1], n + " up to " + n);
        if (n == 2) System.out.println("{\"begun\":true}");
        Thread.sleep(THINK_MS);
      }
    }
  }

  private static void readToTheEnd() {
    try {
      while (System.in.read() >= 0) {}
    } catch (java.io.IOException closed) {
      // As good as the end.
    }
  }

  /** What comes behind "ok": in its line. */
  private static String outcomeOf(Work work) {
    try {
      work.run();
      return "true";
    } catch (Exception | AssertionError error) {
      StackTraceElement[] trace = error.getStackTrace();
      String text = error + (trace.length == 0 ? "" : " at " + trace[0]);
      return "false,\"detail\":\"" + text.replaceAll("[\\p{Cntrl}\"\\\\]+", " ") + "\"";
    }
  }

  private static void say(String via, String feature, String outcome, String more) {
    System.out.printf("{\"via\":\"%s\",\"feature\":\"%s\",\"ok\":%s%s}%n", via, feature, outcome, more);
  }

  static void same(Object found, Object expected) {
    if (!Objects.deepEquals(found, expected)) throw new AssertionError("found " + found + ", expected " + expected);
  }
}

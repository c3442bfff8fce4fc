/**
 * One task: run the features of a Node driver through the proxy and directly, then its loop of numbered writes, and print a JSON line for each.
 *
 * A feature that works through the proxy is run directly only where that is asked for: the direct run says whether a failure is the program's own.
 * The programs of the other languages do the same; clients.test.ts starts them and reads their lines.
 */
import { setTimeout as sleep } from 'node:timers/promises';

const THINK_MS = 200;
const { env } = process;

/** What the tables of this client begin with. */
export const CLIENT = env.CLIENT;
export const ITEMS = `${CLIENT}_items`;
export const TYPES = `${CLIENT}_types`;
export const LOOP = `${CLIENT}_loop`;
export const SLEEP = `SELECT pg_sleep(30) /* cancel ${CLIENT} */`;
export const RUNNING = `SELECT count(*)::integer AS running FROM pg_stat_activity WHERE state = 'active' AND query = '${SLEEP}'`;

/** The authority that has certified the proxy and the server, and one that has not: files. */
export const TRUSTED_CA = env.TRUSTED_CA;
export const OTHER_CA = env.OTHER_CA;

/** A feature that the driver does not have: its cell in the table says so. */
export const NONE = null;

/**
 * @param features by name, in the order of the table; each throws when it does not work
 * @param openLoop opens what writes: insert(n), transaction(n), both acknowledged when they resolve; total() = [count, max]; close()
 */
export async function run(features, openLoop) {
  for (const [feature, work] of Object.entries(features)) {
    if (work === NONE) say({ via: 'proxy', feature, ok: null });
    else if (!(await told('proxy', feature, work)) || env.DIRECT === 'all') await told('direct', feature, work);
  }
  await writeUntilTold(openLoop);
}

/** Runs the feature, tells its outcome, and answers whether it worked. */
async function told(via, feature, work) {
  const outcome = await outcomeOf(() => work(endpointOf(via)));
  say({ via, feature, ...outcome });
  return outcome.ok;
}

async function writeUntilTold(openLoop) {
  let over = false;
  process.stdin.resume().once('end', () => (over = true));
  let acknowledged = 0;
  const outcome = await outcomeOf(async () => {
    const loop = await openLoop(endpointOf('proxy'));
    try {
      while (!over) {
        const n = acknowledged + 1;
        await (n % 2 === 0 ? loop.transaction(n) : loop.insert(n));
        acknowledged = n;
        same(await loop.total(), [n, n]);
        if (n === 2) say({ begun: true });
        await sleep(THINK_MS);
      }
    } finally {
      await loop.close();
    }
  });
  say({ via: 'proxy', feature: 'cutover', ...outcome, acknowledged });
}

async function outcomeOf(work) {
  try {
    await work();
    return { ok: true };
  } catch (error) {
    return { ok: false, detail: String(error.stack ?? error).slice(0, 600) };
  }
}

function endpointOf(via) {
  return {
    host: env.PGHOST,
    port: Number(via === 'direct' ? env.DIRECT_PORT : env.PROXY_PORT),
    user: env.PGUSER,
    password: env.PGPASSWORD,
    database: env.PGDATABASE,
    notifyWaitMs: Number(via === 'direct' ? env.NOTIFY_WAIT_MS_DIRECT : env.NOTIFY_WAIT_MS_PROXY),
  };
}

/** @throws Error unless both are the same as JSON */
export function same(found, expected) {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  if (one !== other) throw new Error(`found ${one}, expected ${other}`);
}

/** The error of what must fail. */
export async function failureOf(work) {
  try {
    await work();
  } catch (error) {
    // Drizzle wraps the driver's own.
    return error.cause?.code === undefined ? error : error.cause;
  }
  throw new Error('it did not fail');
}

/** Waits for what `promise` brings. @throws Error after `ms` */
export async function within(ms, what, promise) {
  const late = new AbortController();
  const deadline = sleep(ms, undefined, { signal: late.signal }).then(() => {
    throw new Error(`${what} did not come within ${ms} ms`);
  });
  deadline.catch(() => undefined);
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    late.abort();
  }
}

/** Waits until the server runs SLEEP. @param ask runs RUNNING and answers the number */
export async function untilRunning(ask) {
  while ((await ask()) !== 1) await sleep(THINK_MS);
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

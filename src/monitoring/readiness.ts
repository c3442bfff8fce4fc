/**
 * One task: decide whether a load balancer should send clients here.
 *
 * Ready is a proxy that accepts clients and can serve at least one database. A database whose clients are held on purpose (a pause, a
 * maintenance, a record being read) counts as served: they wait for it, and taken out of a load balancer they could not. One of which
 * nobody can say when it will be served, or whose servers all do not answer, does not count.
 */
import type { ReachedServer, WatchedProxy } from '../proxy/contract.js';

/** `ending`: from the first signal on, while transactions still end. */
export type Phase = 'starting' | 'serving' | 'ending';

export interface Readiness {
  readonly ready: boolean;
  /** why not, or what is not as it should be all the same; never a password */
  readonly reasons: readonly string[];
}

type Verdict = { readonly serves: true } | { readonly serves: false; readonly known: boolean; readonly reason: string };

const REASONS_MAX = 10;

const NOT_SERVING: Readonly<Record<Exclude<Phase, 'serving'>, string>> = {
  starting: 'starting: the record of cutovers is being read',
  ending: 'shutting down',
};

/** What can be said without asking a server, where that is enough; else servers are asked, for a bounded time. */
export async function readinessOf(proxy: WatchedProxy, phase: () => Phase): Promise<Readiness> {
  if (phase() === 'serving' && !verdictsOn(proxy).some(({ serves }) => serves)) await proxy.askServers();
  const now = phase();
  if (now !== 'serving') return { ready: false, reasons: [NOT_SERVING[now]] };
  const verdicts = verdictsOn(proxy);
  const ready = verdicts.some(({ serves }) => serves);
  if (verdicts.length === 0) return { ready: false, reasons: ['no database is configured'] };
  // While another one serves, a database that nobody has asked for yet is nothing to tell.
  const told = verdicts.flatMap((verdict) => (verdict.serves || (ready && !verdict.known) ? [] : [verdict.reason]));
  return { ready, reasons: told.slice(0, REASONS_MAX) };
}

function verdictsOn(proxy: WatchedProxy): readonly Verdict[] {
  const names = [...new Set(proxy.config.databases.map(({ name }) => name))];
  const servers = proxy.reached();
  return names.map((name) =>
    verdictOn(
      proxy,
      name,
      servers.filter(({ database }) => database === name),
    ),
  );
}

function verdictOn(proxy: WatchedProxy, name: string, servers: readonly ReachedServer[]): Verdict {
  const gate = proxy.gate(name);
  if (gate.outage !== null) return { serves: false, known: true, reason: `${name}: ${gate.outage.problem.message}` };
  if (gate.closed || servers.some(({ state }) => state === 'reached')) return { serves: true };
  const known = servers.some(({ state }) => state === 'unreachable');
  const each = servers.map(
    ({ host, port, problem }) => `${host}:${port.toString()} ${problem ?? 'has not answered yet'}`,
  );
  const why = each.length === 0 ? 'no user may connect to it' : each.join('; ');
  return { serves: false, known, reason: `${name} has no server that can be reached: ${why}` };
}

/**
 * One task: have pools connect anew when the name of their server has come to lead elsewhere, as `dns_ttl` asks.
 *
 * A new connection asks for the address anew in any case; this is about those that are open, which a name that moved would leave where it
 * led before. Names that lead to several addresses in turn have moved only when none of those before is left.
 */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Pool } from './pool.js';

/** @returns every address of a host. Takes as long as the resolver of the operating system does. */
export type Resolve = (host: string) => Promise<readonly string[]>;

interface Known {
  /** empty: not answered yet */
  addresses: readonly string[];
  askedAtMs: number;
  asking: boolean;
}

const askSystem: Resolve = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

export class DnsWatch {
  readonly #pools: () => readonly Pool[];
  readonly #held: (database: string) => boolean;
  readonly #resolve: Resolve;
  readonly #known = new Map<string, Known>();

  /**
   * @param pools all there are now
   * @param held whether clients of a database are held: its connections are left alone then
   */
  constructor(pools: () => readonly Pool[], held: (database: string) => boolean, resolve: Resolve = askSystem) {
    this.#pools = pools;
    this.#held = held;
    this.#resolve = resolve;
  }

  /** To be called about once a second. @param ttlMs how long an answer counts; null: nobody is asked */
  sweep(ttlMs: number | null): void {
    const hosts = new Set(ttlMs === null ? [] : this.#pools().map((pool) => pool.options.endpoint.host));
    for (const host of this.#known.keys()) if (!hosts.has(host)) this.#known.delete(host);
    for (const host of hosts) {
      if (isIP(host) !== 0) continue;
      const known = this.#known.get(host) ?? { addresses: [], askedAtMs: -Infinity, asking: false };
      this.#known.set(host, known);
      if (!known.asking && performance.now() - known.askedAtMs >= (ttlMs ?? 0)) void this.#ask(host, known);
    }
  }

  /** Never rejects: where no answer is to be had, what is open stays open. */
  async #ask(host: string, known: Known): Promise<void> {
    known.asking = true;
    known.askedAtMs = performance.now();
    const addresses = await this.#resolve(host).catch((): readonly string[] => []);
    known.asking = false;
    if (addresses.length === 0) return;
    const moved = known.addresses.length > 0 && !known.addresses.some((address) => addresses.includes(address));
    const pools = this.#pools().filter((pool) => pool.options.endpoint.host === host);
    // What it led to before stays known, so that the next look finds the difference again.
    if (moved && pools.some((pool) => this.#held(pool.label.database))) return;
    known.addresses = addresses;
    if (moved) for (const pool of pools) pool.reconnect();
  }
}

/** One task: hold connections open that do nothing, as most of a large application's do at any moment. */
import pg from 'pg';
import type { Endpoint } from '../src/postgres/endpoint.js';

/** Logins at one time: more would wait for each other in the proxy's login, not in what is measured. */
const BATCH = 50;

export class IdleClients {
  readonly #clients: pg.Client[] = [];
  #lost = 0;
  #ending = false;

  /** Resolves once all `count` are logged in. @throws the error of the first login that fails */
  static async connect(endpoint: Endpoint, count: number): Promise<IdleClients> {
    const idle = new IdleClients();
    for (let made = 0; made < count; made += BATCH)
      await Promise.all(Array.from({ length: Math.min(BATCH, count - made) }, () => idle.#add(endpoint)));
    return idle;
  }

  async #add(endpoint: Endpoint): Promise<void> {
    const { host, port, database, user, password } = endpoint;
    const client = new pg.Client({ host, port, database, user, password, application_name: 'idle' });
    const lose = (): void => {
      if (!this.#ending) this.#lost += 1;
    };
    client.on('error', () => undefined);
    client.on('end', lose);
    await client.connect();
    this.#clients.push(client);
  }

  /** connections that were closed though nobody asked for it */
  get lost(): number {
    return this.#lost;
  }

  async end(): Promise<void> {
    this.#ending = true;
    for (let done = 0; done < this.#clients.length; done += BATCH)
      await Promise.allSettled(this.#clients.slice(done, done + BATCH).map((client) => client.end()));
  }
}

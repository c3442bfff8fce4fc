/** One task: say over HTTP how a process, or all workers of a port together, are doing: `/healthz`, `/readyz` and `/metrics`. */
import type { Server } from 'node:net';
import type { MonitoringConfig } from '../config/config.js';
import type { LocalNode } from '../fleet/local-node.js';
import type { WatchedProxy } from '../proxy/contract.js';
import type { Inherit } from '../proxy/inherited.js';
import type { Logger } from '../proxy/logger.js';
import { familiesOf } from './families.js';
import { figuresOf, type Figures, type ProgramFacts } from './figures.js';
import { HttpListener, type Page } from './http-listener.js';
import { CONTENT_TYPE, exposition } from './openmetrics.js';
import { readinessOf, type Phase, type Readiness } from './readiness.js';

/** What is watched. Its answers are bounded in time. */
export interface Watched {
  readonly phase: Phase;
  readiness(): Promise<Readiness>;
  /** the whole text of `/metrics` */
  metrics(): Promise<string>;
}

/** The proxy of this process. */
export class LocalWatch implements Watched {
  phase: Phase = 'starting';
  readonly #proxy: WatchedProxy;
  readonly #node: LocalNode;
  readonly #program: ProgramFacts;

  constructor(proxy: WatchedProxy, node: LocalNode, program: ProgramFacts) {
    this.#proxy = proxy;
    this.#node = node;
    this.#program = program;
  }

  readiness(): Promise<Readiness> {
    return readinessOf(this.#proxy, () => this.phase);
  }

  figures(): Figures {
    return figuresOf(this.#proxy, this.#node, this.#program);
  }

  metrics(): Promise<string> {
    return Promise.resolve(exposition(familiesOf(this.figures()), this.#proxy.config.monitoring.namespace));
  }
}

export class Monitoring {
  readonly #listeners: readonly HttpListener[];
  /** the ports in use; null: nobody listens */
  readonly healthcheckPort: number | null;
  readonly openmetricsPort: number | null;

  private constructor(health: HttpListener | null, metrics: HttpListener | null) {
    this.#listeners = [...new Set([health, metrics])].filter((listener) => listener !== null);
    this.healthcheckPort = health?.port ?? null;
    this.openmetricsPort = metrics?.port ?? null;
  }

  /** Listens where the configuration says so; one listener does for both where the port is the same. @throws the error of listen() */
  static async start(
    config: MonitoringConfig,
    watched: Watched,
    logger: Logger,
    inherit?: Inherit,
  ): Promise<Monitoring> {
    const { host, healthcheckPort, openmetricsPort } = config;
    const health = [
      ['/healthz', () => healthPage(watched)],
      ['/readyz', () => readinessPage(watched)],
    ] as const;
    const metrics = ['/metrics', () => metricsPage(watched)] as const;
    const open = (
      port: number,
      pages: readonly (readonly [string, () => Page | Promise<Page>])[],
    ): Promise<HttpListener> => HttpListener.open({ host, port, inherit }, new Map(pages), logger);
    if (healthcheckPort === null || healthcheckPort === openmetricsPort) {
      if (openmetricsPort === null) return new Monitoring(null, null);
      const listener = await open(openmetricsPort, healthcheckPort === null ? [metrics] : [...health, metrics]);
      return new Monitoring(healthcheckPort === null ? null : listener, listener);
    }
    const first = await open(healthcheckPort, health);
    if (openmetricsPort === null) return new Monitoring(first, null);
    try {
      return new Monitoring(first, await open(openmetricsPort, [metrics]));
    } catch (error) {
      await first.close();
      throw error;
    }
  }

  get servers(): readonly Server[] {
    return this.#listeners.map(({ server }) => server);
  }

  /** May be called again. */
  async close(): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener.close()));
  }
}

function healthPage({ phase }: Watched): Page {
  return jsonPage(phase !== 'ending', { status: phase });
}

async function readinessPage(watched: Watched): Promise<Page> {
  const { ready, reasons } = await watched.readiness();
  return jsonPage(ready, { status: ready ? 'ready' : 'not ready', reasons });
}

async function metricsPage(watched: Watched): Promise<Page> {
  return { status: 200, type: CONTENT_TYPE, body: await watched.metrics() };
}

function jsonPage(good: boolean, content: object): Page {
  return { status: good ? 200 : 503, type: 'application/json', body: `${JSON.stringify(content)}\n` };
}

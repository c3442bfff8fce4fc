/**
 * One task: the processes of the fleet: built of the product's own parts, dropped in a crash, built anew from what is durable.
 */
import type { EngineContext } from '../../activities/context.js';
import { callNode } from '../../src/admin/node-command.js';
import type { Config } from '../../src/config/config.js';
import { swapNames } from '../../src/config/swap.js';
import { messageOf } from '../../src/errors/errors.js';
import { Directory } from '../../src/fleet/directory.js';
import { Fleet } from '../../src/fleet/fleet.js';
import type { LocalNode } from '../../src/fleet/local-node.js';
import { Connections } from '../../src/postgres/connections.js';
import type { CriticalSection } from '../../activities/critical-section.js';
import { DATABASE, NodeClient } from './clients.js';
import { PORT, SOURCE_HOST } from './configuration.js';
import type { Listener } from './fake-client.js';
import { FakeProxy } from './fake-proxy.js';
import { Actor } from './scheduler.js';
import type { World } from './world.js';

/** A worker of Temporal in a process that runs. */
export interface Worker {
  readonly actor: Actor;
  readonly context: EngineContext;
  readonly section: CriticalSection;
}

/** A proxy in a process that runs. */
export interface RunningNode {
  readonly actor: Actor;
  readonly proxy: FakeProxy;
  readonly node: LocalNode;
  readonly clients: NodeClient[];
}

const CLIENTS = 2;
const COMMAND = /^CUTOVER_NODE (\w+) '(.*)'$/s;

/** One process over its lives. */
export class Process {
  readonly name: string;
  readonly serves: boolean;
  readonly works: boolean;
  readonly #world: World;
  #actor: Actor;
  #lives = 0;
  node: RunningNode | null = null;
  worker: Worker | null = null;
  /** its files name the destination: it has saved them after a move */
  #filesSwapped = false;

  constructor(world: World, name: string, parts: { readonly serves: boolean; readonly works: boolean }) {
    this.#world = world;
    this.name = name;
    this.serves = parts.serves;
    this.works = parts.works;
    this.#actor = new Actor(name);
    this.#actor.alive = false;
  }

  get actor(): Actor {
    return this.#actor;
  }

  get running(): boolean {
    return this.#actor.alive;
  }

  start(): void {
    if (this.running) return;
    this.#lives += 1;
    const actor = new Actor(`${this.name}/${this.#lives.toString()}`);
    this.#actor = actor;
    this.#world.trace(() => `${actor.name} starts`);
    this.#world.scheduler.after(actor, 0, () => {
      if (this.serves) this.#serve(actor);
      else this.worker = this.#work(actor, new Directory(() => this.#files()), () => this.#files(), null);
    });
  }

  /** Everything in memory is gone; the sockets are closed by the machine. */
  crash(): void {
    if (!this.running) return;
    const { proxy } = this.node ?? {};
    if (proxy && this.#world.scheduler.chance(50)) this.#filesSwapped = proxy.route(DATABASE) !== SOURCE_HOST;
    this.#world.trace(() => `${this.#actor.name} dies`);
    this.#actor.alive = false;
    this.node = null;
    this.worker = null;
    this.#world.processGone(this.#actor);
  }

  #files(): Config {
    const { configuration } = this.#world;
    return this.#filesSwapped ? swapNames(configuration, 'app', 'app_new') : configuration;
  }

  #serve(actor: Actor): void {
    const world = this.#world;
    const proxy = new FakeProxy(this.#files(), { host: '0.0.0.0', port: PORT }, world.scheduler);
    const log = {
      info: () => undefined,
      warn: (details: object, message: string) => {
        world.trace(() => `${actor.name} warns: ${message} ${JSON.stringify(details)}`);
      },
    };
    const node = new world.planted.node(this.name, proxy, log);
    const running: RunningNode = { actor, proxy, node, clients: [] };
    this.node = running;
    const fleet = new Fleet({ config: () => proxy.config, own: node, row: this.name });
    void this.#recoverFirst(running).then(() => {
      for (let index = 1; index <= CLIENTS; index++) running.clients.push(new NodeClient(world, running, index));
      if (this.works) this.worker = this.#work(actor, node.directory, () => proxy.config, fleet);
    });
  }

  /** As serve() does: nobody is served before the record was asked. */
  async #recoverFirst({ node, proxy }: RunningNode): Promise<void> {
    const { names } = node.directory;
    for (const name of names) proxy.gate(name).close('recovery');
    try {
      await node.recover();
    } catch (error) {
      this.#world.trace(() => `${this.#actor.name}: the record could not be read at the start: ${messageOf(error)}`);
    } finally {
      for (const name of names) proxy.gate(name).open('recovery');
    }
  }

  #work(actor: Actor, directory: Directory, config: () => Config, fleet: Fleet | null): Worker {
    const world = this.#world;
    const context: EngineContext = {
      config,
      directory,
      connections: new Connections({ applicationName: 'cutover engine' }),
      fleet: fleet ?? new Fleet({ config, own: null, row: null }),
      isRunning: () => Promise.resolve(false),
      onStep: (plan, step) => {
        world.step(actor, plan, step);
      },
    };
    return { actor, context, section: new world.planted.section(context) };
  }

  /** The admin database of the node. */
  get listener(): Listener | null {
    const { node } = this;
    if (!node) return null;
    return {
      actor: node.actor,
      answer: (_client, text, _values, reply) => {
        const [, method = '', quoted = ''] = COMMAND.exec(text) ?? [];
        callNode(node.node, method, quoted.replaceAll("''", "'")).then(
          (result) => {
            reply(null, [{ result }]);
          },
          (error: unknown) => {
            reply(new Error(messageOf(error)), []);
          },
        );
      },
    };
  }
}

/** One task: answer the commands of the admin database. */
import { suggest } from '../config/suggest.js';
import { CutoverError } from '../errors/errors.js';
import { unreachable } from '../errors/invariant.js';
import type { AdminHandler, AdminResult } from '../proxy/contract.js';
import { Hold } from './holds.js';
import { callNode, statementIn } from './node-command.js';
import { parseCommand, type AdminCommand } from './parse.js';
import type { AdminPorts } from './ports.js';
import { probe } from './probe.js';
import { showClients, showServers } from './show-clients.js';
import { showConfig, showLists, showOther, showVersion } from './show-config.js';
import { showCutovers, showEvents, showPlan, showRehearsal } from './show-cutovers.js';
import { showMaintenance } from './show-maintenance.js';
import { showNodes } from './show-nodes.js';
import { showBans, showPools, showReplication, showStats } from './show-pools.js';
import { showReplicationSlots, showTableCopies } from './show-resharding.js';
import { showShards } from './show-shards.js';
import { showTasks } from './show-tasks.js';
import { bigint, done, table, text } from './table.js';

const EVENTS_MAX = 1_000;

/** What drivers set on every connection; it means nothing here and is taken without effect, as PgDog does. */
const SESSION_SETTINGS = new Set([
  ...['application_name', 'client_encoding', 'client_min_messages', 'datestyle', 'extra_float_digits', 'intervalstyle'],
  ...['lock_timeout', 'session', 'standard_conforming_strings', 'statement_timeout', 'timezone', 'time'],
]);

type View = (names: readonly string[], now: Date) => AdminResult | Promise<AdminResult>;

/** The admin database of one process. Commands of several sessions may run at once; each is answered by itself. */
export class AdminDatabase implements AdminHandler {
  readonly #ports: AdminPorts;
  readonly #maintenance: Hold;
  readonly #pause: Hold;
  readonly #views: Readonly<Record<string, View>>;
  readonly #startedAt = performance.now();

  constructor(ports: AdminPorts) {
    this.#ports = ports;
    this.#maintenance = new Hold(ports.proxy, 'maintenance');
    this.#pause = new Hold(ports.proxy, 'pause');
    this.#views = this.#makeViews();
  }

  /**
   * Executes one command.
   *
   * @throws CutoverError, which the session sends as an ERROR; the session goes on
   */
  async execute(statement: string): Promise<AdminResult> {
    const command = parseCommand(statement);
    if (command.command === 'node' && command.method === 'execute') return this.#alone(command.json);
    const answer = await this.#run(command);
    if (!isForAll(command)) return answer;
    const others = await this.#ports.tellSiblings(statement);
    return { ...answer, rows: [...answer.rows, ...others.flatMap(({ rows }) => rows)] };
  }

  /** What another worker of this node was told: done here and passed on to nobody. */
  async #alone(json: string): Promise<AdminResult> {
    const statement = statementIn(json);
    const answer = await this.#run(parseCommand(statement));
    return table([text('result', (result: AdminResult) => JSON.stringify(result))], [answer], 'CUTOVER_NODE');
  }

  async #run(command: AdminCommand): Promise<AdminResult> {
    const { tasks, node } = this.#ports;
    switch (command.command) {
      case 'start':
        return this.#start(command);
      case 'cutover':
        return this.#cutover(command);
      case 'verify':
        return this.#verify(command.source, command.destination);
      case 'stop_task':
        return table(
          [text('stop_task', (answer: string) => answer)],
          [await tasks.stop(command.taskId, command.save)],
          'STOP_TASK',
        );
      case 'retire':
        await tasks.retire(command.database);
        return done('RETIRE');
      case 'show':
        return this.#show(command.view, command.arguments);
      case 'maintenance':
        this.#maintenance.set(command.on, command.database);
        return done('MAINTENANCE');
      case 'pause':
      case 'resume':
        this.#pause.set(command.command === 'pause', command.database);
        return done(command.command.toUpperCase());
      case 'reload':
        return this.#reload();
      case 'reconnect':
        this.#ports.proxy.reconnect();
        return done('RECONNECT');
      case 'ban':
      case 'unban':
        return this.#ban(command);
      case 'shutdown':
        this.#ports.shutdown();
        return done('SHUTDOWN');
      case 'probe':
        return table(
          [bigint('latency', (ms: number) => ms)],
          [await probe(command.url, this.#ports.proxy.config.tls.servers)],
          'PROBE',
        );
      case 'set':
        return setting(command.name);
      case 'node':
        return table(
          [text('result', (json: string) => json)],
          [await callNode(node, command.method, command.json)],
          'CUTOVER_NODE',
        );
      default:
        return unreachable(command);
    }
  }

  async #start({ tag, request }: Extract<AdminCommand, { command: 'start' }>): Promise<AdminResult> {
    const { source, destination } = request;
    if (source === destination) throw new CutoverError('same_database', { source, destination });
    const started = await this.#ports.tasks.start(request);
    const columns = [text('task_id', ({ taskId }: typeof started) => taskId.toString())];
    if (request.kind === 'copy_data') {
      columns.push(text('replication_slot', ({ replicationSlot }) => replicationSlot ?? null));
    }
    return table(columns, [started], tag);
  }

  async #verify(source: string, destination: string): Promise<AdminResult> {
    if (source === destination) throw new CutoverError('same_database', { source, destination });
    const started = await this.#ports.tasks.verify(source, destination);
    return table([text('task_id', ({ taskId }: typeof started) => taskId.toString())], [started], 'VERIFY');
  }

  async #cutover({ target, option }: Extract<AdminCommand, { command: 'cutover' }>): Promise<AdminResult> {
    if (option === 'dry run') return showPlan(await this.#ports.tasks.dryRun(target));
    if (option === 'rehearse') return showRehearsal(await this.#ports.tasks.rehearse(target));
    await this.#ports.tasks.cutover(target, option === 'accept loss');
    return table([text('cutover', (answer: string) => answer)], ['OK'], 'CUTOVER');
  }

  #ban({ command, pool }: Extract<AdminCommand, { command: 'ban' | 'unban' }>): AdminResult {
    const count = this.#ports.proxy.setBan(pool, command === 'ban');
    if (pool !== null && count === 0) {
      const problem = `pool ${pool.toString()} is not one of a replica`;
      throw new CutoverError('admin_syntax', { problem, usage: 'See the rows of SHOW POOLS with the role replica.' });
    }
    return done(command.toUpperCase());
  }

  async #reload(): Promise<AdminResult> {
    await this.#ports.reload();
    this.#maintenance.enforce();
    this.#pause.enforce();
    return done('RELOAD', this.#ports.proxy.config.warnings);
  }

  async #show(view: string, names: readonly string[]): Promise<AdminResult> {
    const show = Object.hasOwn(this.#views, view) ? this.#views[view] : undefined;
    if (show) return show(names, new Date());
    const meant = suggest(view, Object.keys(this.#views));
    const answer = showOther(
      [view, ...names].join(' ').toLowerCase(),
      view === 'server_version' ? this.#ports.version : '',
    );
    return meant === null ? answer : { ...answer, notices: [`there is no view "${view}", did you mean "${meant}"?`] };
  }

  #makeViews(): Readonly<Record<string, View>> {
    const { proxy, tasks, version } = this.#ports;
    return {
      tasks: async (_, now) => showTasks(await tasks.list(), now),
      replication_slots: async (_, now) => showReplicationSlots(await tasks.slots(), now, proxy.config.cutover),
      table_copies: async (_, now) => showTableCopies(await tasks.tableCopies(), now),
      cutovers: async () => showCutovers(await tasks.cutovers()),
      events: async ([task]) => showEvents(await tasks.events(taskIdOf(task), EVENTS_MAX)),
      pools: () => showPools(proxy.pools(), proxy.config),
      bans: () => showBans(proxy.pools()),
      replication: () => showReplication(proxy.pools()),
      stats: () => showStats(proxy.stats(), performance.now() - this.#startedAt),
      clients: (names) => showClients(proxy.clients(), names),
      servers: (names, now) => showServers(proxy.servers(), names, now),
      config: () => showConfig(proxy.config),
      lists: () => showLists(proxy),
      nodes: async () => showNodes(await tasks.nodes()),
      shards: () => showShards(proxy.config),
      maintenance: () => showMaintenance(proxy, this.#maintenance, this.#pause),
      version: () => showVersion(version),
    };
  }
}

/** Views and commands that are about the clients of a node, whichever of its workers they are connected to. */
const VIEWS_FOR_ALL = new Set(['pools', 'bans', 'replication', 'stats', 'clients', 'servers']);
const COMMANDS_FOR_ALL = new Set(['maintenance', 'pause', 'resume', 'reload', 'reconnect']);

function isForAll(command: AdminCommand): boolean {
  return command.command === 'show' ? VIEWS_FOR_ALL.has(command.view) : COMMANDS_FOR_ALL.has(command.command);
}

function taskIdOf(word: string | undefined): number | null {
  if (word === undefined) return null;
  if (/^\d{1,15}$/.test(word)) return Number(word);
  throw new CutoverError('admin_syntax', { problem: 'a task id is a number', usage: 'Usage: SHOW EVENTS [<task_id>]' });
}

function setting(name: string): AdminResult {
  if (!SESSION_SETTINGS.has(name.toLowerCase())) throw new CutoverError('setting_fixed', { name });
  return done('SET');
}

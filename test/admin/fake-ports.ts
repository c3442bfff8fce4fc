/** One task: ports that remember what the admin database asked of them. The admin database only maps, so fakes show all of it. */
import type {
  AdminPorts,
  CutoverRow,
  EventRow,
  SlotRow,
  TableCopyRow,
  TaskPort,
  TaskRow,
} from '../../src/admin/ports.js';
import type { FleetNode } from '../../src/fleet/node.js';
import { Gate } from '../../src/proxy/gate.js';
import type { ClientStatus, PoolStats, PoolStatus, Proxy, ServerStatus } from '../../src/proxy/contract.js';
import { parseConfig } from '../../src/config/load.js';
import type { Config } from '../../src/config/config.js';

export interface FakeRows {
  readonly tasks: TaskRow[];
  readonly slots: SlotRow[];
  readonly copies: TableCopyRow[];
  readonly cutovers: CutoverRow[];
  readonly events: EventRow[];
  readonly pools: PoolStatus[];
  readonly clients: ClientStatus[];
  readonly servers: ServerStatus[];
  readonly stats: PoolStats[];
}

export interface FakePorts extends AdminPorts {
  /** calls as `method [arguments]` */
  readonly calls: string[];
  readonly rows: FakeRows;
  /** what RELOAD puts into force */
  next: Config;
}

export function configOf(...names: readonly string[]): Config {
  const config = names.map((name) => `[[databases]]\nname = "${name}"\nhost = "h"\n`).join('');
  const users = '[[users]]\nname = "app"\nall_databases = true\nschema_admin = true\npassword = "hunter2"';
  const options = { environment: {}, adminPassword: 'hunter2' };
  return parseConfig({ file: 'pgdog.toml', text: config }, { file: 'users.toml', text: users }, options);
}

export function fakePorts(): FakePorts {
  const calls: string[] = [];
  const rows: FakeRows = {
    tasks: [],
    slots: [],
    copies: [],
    cutovers: [],
    events: [],
    pools: [],
    clients: [],
    servers: [],
    stats: [],
  };
  const called = <T>(answer: T, name: string, ...given: readonly unknown[]): Promise<T> => {
    calls.push(`${name} ${JSON.stringify(given)}`);
    return Promise.resolve(answer);
  };
  const proxy = fakeProxy(rows, calls);
  const ports: FakePorts = {
    calls,
    rows,
    next: configOf('prod', 'prod_new'),
    version: '0.1.0',
    proxy,
    node: fakeNode(called),
    tasks: fakeTasks(rows, called),
    reload: () => {
      proxy.apply(ports.next);
      return called(undefined, 'reload');
    },
    tellSiblings: () => Promise.resolve([]),
    shutdown: () => void calls.push('shutdown []'),
  };
  return ports;
}

type Called = <T>(answer: T, name: string, ...given: readonly unknown[]) => Promise<T>;

function fakeTasks(rows: FakeRows, called: Called): TaskPort {
  return {
    start: (request) => called({ taskId: 7, replicationSlot: 'cutover_7' }, 'start', request),
    cutover: (...given) => called(undefined, 'cutover', ...given),
    dryRun: (target) =>
      called(
        [{ part: 'preflight', name: 'versions', verdict: 'ok', detail: '17 to 18', remedy: '' }],
        'dryRun',
        target,
      ),
    verify: (...given) => called({ taskId: 9 }, 'verify', ...given),
    rehearse: (target) =>
      called(
        {
          taskId: 8,
          rows: [
            { step: 'pauseTraffic', ms: 1.5, detail: 'gates closed' },
            { step: 'commitCutover', ms: null, detail: 'not rehearsed' },
          ],
          finished: true,
        },
        'rehearse',
        target,
      ),
    stop: (...given) => called(given[0] === 7 ? 'OK' : 'task not found', 'stop', ...given),
    retire: (database) => called(undefined, 'retire', database),
    list: () => called(rows.tasks, 'list'),
    nodes: () => called([], 'nodes'),
    slots: () => called(rows.slots, 'slots'),
    tableCopies: () => called(rows.copies, 'tableCopies'),
    cutovers: () => called(rows.cutovers, 'cutovers'),
    events: (taskId) => called(rows.events, 'events', taskId),
  };
}

function fakeNode(called: Called): FleetNode {
  const state = {
    ...{
      node: 'node',
      database: 'prod',
      epochSeen: 3,
      epochResolved: 2,
      serving: null,
      gateReasons: [],
      configFingerprint: 'f',
    },
    filesServe: true,
  };
  return {
    name: 'node',
    states: () => called([state], 'states'),
    members: () => called([{ name: 'node', port: 6432 }], 'members'),
    save: (database) => called(undefined, 'save', database),
    state: (database) => called(state, 'state', database),
    prepare: (request) => called(undefined, 'prepare', request),
    pause: (request) => called({ drained: true, waitedMs: 1.5, clientsHeld: 2, holders: [] }, 'pause', request),
    renew: (...given) => called(true, 'renew', ...given),
    swap: (request) => called(undefined, 'swap', request),
    resume: (...given) => called(undefined, 'resume', ...given),
  };
}

function fakeProxy(rows: FakeRows, calls: string[]): Proxy {
  let config = configOf('prod', 'prod_new');
  const gates = new Map<string, Gate>();
  const gate = (database: string): Gate => {
    const holders = [{ clientId: 4, user: 'app', application: 'psql', serverPid: 99, transactionMs: 1234.5 }].filter(
      () => database === 'prod',
    );
    const made = gates.get(database) ?? new Gate({ holders: () => holders });
    gates.set(database, made);
    return made;
  };
  return {
    listenAlone: () => Promise.resolve(6433),
    address: { host: 'h', port: 1 },
    get config() {
      return config;
    },
    gate,
    apply: (next) => {
      config = next;
    },
    warm: () => Promise.resolve(),
    reconnect: () => void calls.push('reconnect []'),
    setBan: (pool, banned) => {
      calls.push(`setBan ${JSON.stringify([pool, banned])}`);
      return pool === 99 ? 0 : 1;
    },
    cancelRunning: () => undefined,
    listenersMoved: () => Promise.resolve(true),
    pools: () => rows.pools,
    clients: () => rows.clients,
    servers: () => rows.servers,
    stats: () => rows.stats,
    close: () => Promise.resolve(),
  };
}

/** One task: the story of the demo with shards: one database moves to several, back, and there again, all of it under orders; then compare. */
import { setTimeout as sleep } from 'node:timers/promises';
import { checksumsOf, differingTables, type SideChecksums } from '../../dev/tenants/checksums.js';
import { compareShop } from '../../dev/tenants/compare.js';
import { startTenants, type TenantLoad } from '../../dev/tenants/load.js';
import { prepareShop, SHOP_PUBLICATION, TENANTS } from '../../dev/tenants/shop.js';
import type { Cleanup } from './cleanup.js';
import { acknowledgedAround, printClients } from './clients.js';
import { moveThereAndBack, SWITCHES } from './moves.js';
import { Operator, type Move } from './operator.js';
import { detail, heading, secondsSince, thousands } from './print.js';
import { printReport, printRows } from './sharded-views.js';
import type { ShardedFacts } from './sharded-verdict.js';
import { APPLICATION_USER, SHARDED_DESTINATION, SOURCE, type Stage } from './stage.js';
import type { StoryOptions } from './story.js';

const ALIKE_DEADLINE_MS = 30_000;
const ALIKE_POLL_MS = 500;

/** Tells the whole story and answers what it showed. */
export async function tellSharded(stage: Stage, options: StoryOptions, cleanup: Cleanup): Promise<ShardedFacts> {
  const loaded = await prepare(stage, options.rows);
  const load = await startTenants({ endpoint: stage.application, writers: options.writers });
  cleanup.defer('the shop', () => load.stop());
  heading(`Shop: ${options.writers.toString()} clients order, others write notes, prices and reports of all tenants`);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const moves = await moveThereAndBack(operator, load, {
    destination: SHARDED_DESTINATION,
    publication: SHOP_PUBLICATION,
    afterEach: (direction) => show(stage, direction),
  });
  await load.stop();
  return { ...(await compare(stage, load, loaded, options.loseOneWrite)), ...clients(load, moves) };
}

async function prepare(stage: Stage, rows: number): Promise<SideChecksums> {
  heading(`Load: ${thousands(rows)} rows of ${TENANTS.toString()} tenants into ${SOURCE}`);
  const started = performance.now();
  const { cluster, database } = stage.sides.source;
  await prepareShop(cluster.endpoint(database), { history: rows, owner: APPLICATION_USER });
  const loaded = await checksumsOf([stage.sides.source]);
  detail(`in ${secondsSince(started)}`);
  return loaded;
}

async function show({ sides, application }: Stage, side: 'source' | 'destination'): Promise<void> {
  await printRows(side === 'source' ? [sides.source] : sides.destination);
  await printReport(application);
}

type Compared = Pick<ShardedFacts, 'comparison' | 'historyOk' | 'differing'>;

async function compare(
  stage: Stage,
  load: TenantLoad,
  loaded: SideChecksums,
  loseOneWrite: boolean,
): Promise<Compared> {
  heading('Comparison with what the clients were told, through the proxy, and of the two sides');
  if (loseOneWrite) await loseOne(stage, load);
  const started = performance.now();
  const comparison = await compareShop(stage.application, load);
  const { lost, doubled, inPart } = comparison;
  detail(`${thousands(load.orders.size)} acknowledged orders looked for in ${secondsSince(started)}`);
  detail(`lost ${thousands(lost.length)}, doubled ${thousands(doubled.length)}, in part ${thousands(inPart.length)}`);
  detail(`ids given twice: ${thousands(load.repeated.length)}`);
  const { serving, differing } = await alike(stage);
  const rows = [...serving.values()].reduce((sum, table) => sum + table.rows, 0);
  detail(
    `${thousands(rows)} rows on the shards; tables that ${SOURCE} has differently: ${differing.join(', ') || 'none'}`,
  );
  return { comparison, differing, historyOk: sameHistory(loaded, serving) };
}

/** The streams carry to the other side what has been written: after that both have the same rows. */
async function alike({ sides }: Stage): Promise<{ serving: SideChecksums; differing: readonly string[] }> {
  const end = performance.now() + ALIKE_DEADLINE_MS;
  for (;;) {
    const [serving, other] = await Promise.all([checksumsOf(sides.destination), checksumsOf([sides.source])]);
    const differing = differingTables(serving, other);
    if (differing.length === 0 || performance.now() > end) return { serving, differing };
    await sleep(ALIKE_POLL_MS);
  }
}

function sameHistory(loaded: SideChecksums, found: SideChecksums): boolean {
  return !differingTables(loaded, found).includes('history');
}

async function loseOne({ sides }: Stage, load: TenantLoad): Promise<void> {
  const token = load.acknowledged[0]?.token ?? '';
  detail(`by hand: the acknowledged order ${token} is deleted`);
  const itsLines = `DELETE FROM public.lines l USING public.orders o
    WHERE o.token = '${token}' AND l.tenant_id = o.tenant_id AND l.order_id = o.id`;
  for (const { cluster, database } of sides.destination) {
    await cluster.query(database, `${itsLines}; DELETE FROM public.orders WHERE token = '${token}'`);
  }
}

function clients(load: TenantLoad, moves: readonly Move[]): Omit<ShardedFacts, keyof Compared> {
  const { refused, reports, longestStallMs } = load;
  const acknowledged = load.orders.size;
  printClients({ writes: load, acknowledged, reads: reports, refused, unknown: 0, longestStallMs, moves });
  return {
    acknowledged,
    acknowledgedAround: moves.map((move) => acknowledgedAround(load, move)),
    switchesExpected: SWITCHES,
    refused: refused.length,
    // Whose outcome nobody knows counts as refused.
    unknown: 0,
    staleReads: load.wentBack,
    repeatedIds: load.repeated.length,
  };
}

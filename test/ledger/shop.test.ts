/** One task: the comparison of the shop notices every order and note that is lost, doubled, invented or torn, and sides that differ. */
import { expect, test } from 'vitest';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { checksumsOf, differingTables } from '../../src/dev/tenants/checksums.js';
import { compareShop, type ShopComparison } from '../../src/dev/tenants/compare.js';
import { startTenants, type TenantLoad } from '../../src/dev/tenants/load.js';
import { prepareShop } from '../../src/dev/tenants/shop.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';

const clusters = useClusters({ server: { major: 18 } });

const CLEAN: ShopComparison = {
  lost: [],
  doubled: [],
  unexpected: [],
  inPart: [],
  miscounted: [],
  notes: [],
  pricesOk: true,
};

/** A shop whose load has stopped after a few dozen orders. */
async function written(): Promise<{ readonly database: string; readonly load: TenantLoad }> {
  const database = await freshDatabase(clusters.server, 'shop');
  const endpoint = clusters.server.endpoint(database);
  await prepareShop(endpoint, { history: 500, owner: 'postgres' });
  const load = await startTenants({ endpoint });
  await until(
    'orders, notes and raised prices',
    () => load.orders.size >= 60 && load.notes.size > 2 && load.raised > 2,
  );
  await load.stop();
  return { database, load };
}

test('a load in which nothing happened is clean', async () => {
  const { database, load } = await written();
  expect(load).toMatchObject({ refused: [], repeated: [], wentBack: 0 });
  expect(load.acknowledged).toHaveLength(load.orders.size);
  expect(await compareShop(clusters.server.endpoint(database), load)).toEqual(CLEAN);
});

test('what is done by hand is noticed, each by its name', async () => {
  const { database, load } = await written();
  const compare = (): Promise<ShopComparison> => compareShop(clusters.server.endpoint(database), load);
  const [lost = '', doubled = '', torn = '', moved = ''] = load.orders.keys();
  const [note = ''] = load.notes.keys();
  const itsLines = `USING public.orders o WHERE l.tenant_id = o.tenant_id AND l.order_id = o.id AND o.token =`;
  await clusters.server.query(
    database,
    `DELETE FROM public.lines l ${itsLines} '${lost}';
     DELETE FROM public.orders WHERE token = '${lost}';
     INSERT INTO public.orders (tenant_id, token) SELECT tenant_id, token FROM public.orders WHERE token = '${doubled}';
     DELETE FROM public.lines l ${itsLines} '${torn}' AND l.line = 2;
     INSERT INTO public.orders (tenant_id, token) VALUES (1, '00000000-0000-0000-0000-000000000000');
     UPDATE public.tenants SET orders = orders + 1 WHERE tenant_id = 7;
     DELETE FROM public.notes WHERE ctid IN (SELECT ctid FROM public.notes WHERE token = '${note}' LIMIT 1);
     UPDATE public.items SET price = price + 1 WHERE code = 1`,
  );
  const found = await compare();
  expect(found).toMatchObject({
    lost: [lost],
    doubled: [doubled],
    unexpected: ['00000000-0000-0000-0000-000000000000'],
    miscounted: ['7'],
    notes: [note],
    pricesOk: false,
  });
  expect(new Set(found.inPart)).toEqual(new Set([doubled, torn, '00000000-0000-0000-0000-000000000000']));
  expect(
    await compareShop(clusters.server.endpoint(database), { ...load, orders: new Map([[moved, '41']]) }),
  ).toMatchObject({
    lost: [moved],
  });
});

/** Two shops with the same rows. */
async function twoShops(): Promise<readonly [Place, Place]> {
  const shop = async (name: string): Promise<Place> => {
    const database = await freshDatabase(clusters.server, name);
    await prepareShop(clusters.server.endpoint(database), { history: 100, owner: 'postgres' });
    await clusters.server.query(database, 'DELETE FROM public.notes');
    return { cluster: clusters.server, database };
  };
  return [await shop('one'), await shop('other')];
}

test('two sides are the same until one row of one of them is another', async () => {
  const [one, other] = await twoShops();
  const differing = async (): Promise<readonly string[]> =>
    differingTables(await checksumsOf([one]), await checksumsOf([other]));
  expect(await differing()).toEqual([]);
  await clusters.server.query(other.database, `UPDATE public.history SET body = 'another' WHERE day = 99`);
  expect(await differing()).toEqual(['history']);
});

test('shards that have a table of every shard differently differ from any other side', async () => {
  const shards = await twoShops();
  const differing = async (): Promise<readonly string[]> =>
    differingTables(await checksumsOf(shards.slice(0, 1)), await checksumsOf(shards));
  expect(await differing()).not.toContain('items');
  await clusters.server.query(shards[1].database, 'UPDATE public.items SET price = 0 WHERE code = 1');
  expect(await differing()).toContain('items');
});

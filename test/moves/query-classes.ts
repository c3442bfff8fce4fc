/** One task: make queries of every class that a sharded cluster has to answer, each from a number; the same each time. */
import { TENANTS } from '../../src/dev/tenants/shop.js';

/** Rows without chance, so that two databases can be filled alike. */
export const QUERY_ROWS = `
  INSERT INTO public.tenants SELECT n, n * 7 FROM generate_series(1, ${TENANTS.toString()}) n;
  INSERT INTO public.items SELECT n, n * 1.25 FROM generate_series(1, 20) n;
  INSERT INTO public.orders (tenant_id, id, token, state, tags, data, at)
    SELECT 1 + n % ${TENANTS.toString()}, n, md5(n::text)::uuid, (ARRAY['new', 'paid'])[1 + n % 2]::public.state, ARRAY['a' || n % 3, NULL],
      jsonb_build_object('n', n % 5), '2026-01-01 00:00+00'::timestamptz + n * interval '1 hour' FROM generate_series(1, 2000) n;
  INSERT INTO public.lines SELECT o.tenant_id, o.id, l, 1 + (o.id * l) % 20, 1 + o.id % 4 FROM public.orders o, generate_series(1, 2) l;
  INSERT INTO public.notes SELECT nullif(n % 9, 0), md5(n::text)::uuid, 'note ' || n FROM generate_series(1, 200) n;
  INSERT INTO public.history SELECT 1 + n % ${TENANTS.toString()}, n, repeat('h', n % 50) FROM generate_series(1, 900) n;`;

export interface Asked {
  readonly text: string;
  readonly values?: readonly unknown[];
  readonly name?: string;
  /** answers in binary */
  readonly binary?: boolean;
  /** run in a transaction of its own, one after the other; the answers of all count */
  readonly then?: readonly string[];
}

type Make = (pick: (below: number) => number) => Asked;

const tenant = (pick: (below: number) => number): number => 1 + pick(TENANTS);
const many = (pick: (below: number) => number): number[] => Array.from({ length: 1 + pick(5) }, () => tenant(pick));

/** Each makes a query whose answer has one order, or is compared as a bag of rows. */
export const CLASSES: Readonly<Record<string, Make>> = {
  'one key, literal': (pick) => ({
    text: `SELECT id, state, tags, data FROM orders WHERE tenant_id = ${tenant(pick).toString()} AND id % 3 = ${pick(3).toString()}`,
  }),
  'one key, parameter': (pick) => ({
    text: 'SELECT id, token, at FROM orders WHERE tenant_id = $1 AND id > $2',
    values: [tenant(pick), pick(2000)],
  }),
  'one key, prepared, binary': (pick) => ({
    name: 'prepared',
    binary: true,
    text: 'SELECT id, state::text, doubled FROM orders WHERE tenant_id = $1 ORDER BY id LIMIT 5',
    values: [tenant(pick)],
  }),
  'IN and ANY': (pick) =>
    pick(2) === 0
      ? { text: `SELECT tenant_id, orders FROM tenants WHERE tenant_id IN (${many(pick).join(', ')})` }
      : { text: 'SELECT tenant_id, orders FROM tenants WHERE tenant_id = ANY ($1)', values: [many(pick)] },
  'join inside a tenant': (pick) => ({
    text: `SELECT o.id, l.line, i.price FROM orders o JOIN lines l ON l.tenant_id = o.tenant_id AND l.order_id = o.id JOIN items i USING (code)
      WHERE o.tenant_id = ${tenant(pick).toString()} AND l.quantity > ${pick(4).toString()}`,
  }),
  'join across shards': (pick) => ({
    text: `SELECT a.tenant_id, b.tenant_id, count(*) FROM orders a JOIN orders b ON b.id = a.id + ${(1 + pick(9)).toString()} WHERE a.id < 200 GROUP BY 1, 2 ORDER BY 1, 2`,
  }),
  'common table expression': (pick) => ({
    text: `WITH busy AS (SELECT tenant_id, count(*) AS n FROM orders WHERE id % ${(2 + pick(7)).toString()} = 0 GROUP BY 1)
      SELECT t.tenant_id, busy.n, t.orders FROM busy JOIN tenants t USING (tenant_id) ORDER BY n DESC, 1 LIMIT 9`,
  }),
  subquery: (pick) => ({
    text: `SELECT tenant_id FROM tenants t WHERE ${pick(2) === 0 ? '' : 'NOT '}EXISTS (SELECT FROM orders o WHERE o.tenant_id = t.tenant_id AND o.id BETWEEN ${pick(900).toString()} AND 930)
      AND orders > (SELECT avg(orders) FROM tenants) - ${pick(200).toString()}`,
  }),
  window: (pick) => ({
    text: `SELECT tenant_id, id, rank() OVER (PARTITION BY state ORDER BY at DESC, id), sum(doubled) OVER (ORDER BY id ROWS ${pick(4).toString()} PRECEDING)
      FROM orders WHERE id % ${(11 + pick(9)).toString()} = 0 ORDER BY id`,
  }),
  'GROUP BY and HAVING': (pick) => ({
    text: `SELECT state, code, count(*), sum(quantity), avg(quantity) FROM orders JOIN lines ON (lines.tenant_id, order_id) = (orders.tenant_id, id)
      GROUP BY 1, 2 HAVING count(*) > ${(60 + pick(90)).toString()} ORDER BY 1, 2`,
  }),
  'grouping sets': (pick) => ({
    text: `SELECT state, tenant_id % ${(2 + pick(3)).toString()} AS part, count(*), grouping(state) FROM orders GROUP BY ${['ROLLUP (1, 2)', 'CUBE (1, 2)', 'GROUPING SETS ((1), (2), ())'][pick(3)] ?? ''} ORDER BY 1, 2, 4`,
  }),
  'order, collation, limit': (pick) => ({
    text: `SELECT body, tenant_id FROM notes ORDER BY body ${pick(2) === 0 ? 'COLLATE "C" DESC' : ''}, tenant_id NULLS FIRST LIMIT ${(1 + pick(40)).toString()} OFFSET ${pick(100).toString()}`,
  }),
  aggregates: (pick) => ({
    text: `SELECT count(*), min(id), max(at), sum(id), avg(id), bool_and(id > 0), stddev(id)::numeric(20, 6), variance(id)::numeric(20, 6) FROM orders WHERE id % ${(1 + pick(50)).toString()} = 0`,
  }),
  cursor: (pick) => ({
    text: `DECLARE c CURSOR FOR SELECT tenant_id, id FROM orders WHERE id % 7 = ${pick(7).toString()} ORDER BY id`,
    then: [`FETCH ${(1 + pick(30)).toString()} FROM c`, 'MOVE 3 FROM c', 'FETCH 5 FROM c', 'CLOSE c'],
  }),
  'partitioned table and NULL keys': (pick) =>
    pick(2) === 0
      ? { text: `SELECT day, length(body) FROM history WHERE tenant_id = ${tenant(pick).toString()} ORDER BY day` }
      : {
          text: 'SELECT count(*), min(body) FROM notes WHERE tenant_id IS NULL AND length(body) > $1',
          values: [pick(8)],
        },
  'the same on every shard': (pick) => ({
    text: 'SELECT code, price FROM items WHERE code > $1 ORDER BY price',
    values: [pick(20)],
  }),
};

/** The query of a class with this number. */
export function queryOf(name: string, number: number): Asked {
  const make = CLASSES[name];
  if (!make) throw new Error(`there is no class ${name}`);
  let state = (number * 2_654_435_761 + name.length) >>> 0;
  return make((below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  });
}

/** One task: hold the cutting of a dump into statements and parts to the lexical rules of PostgreSQL. */
import { describe, expect, it } from 'vitest';
import { splitSchema } from '../../src/postgres/schema.js';
import { splitStatements } from '../../src/postgres/dump/statements.js';
import { Turns } from '../../src/postgres/dump/turns.js';

const texts = async (dump: string): Promise<readonly string[]> =>
  (await splitStatements(dump, new Turns())).map((s) => s.text);

/** An entry as pg_dump writes it. */
const entry = (type: string, name: string, ...statements: string[]): string =>
  `--\n-- Name: ${name}; Type: ${type}; Schema: public; Owner: me\n--\n\n${statements.join('\n')}\n\n`;

describe('a semicolon', () => {
  it.each([
    ['in a string', `SELECT 'a;b''c;';`],
    ['in a string with escapes', `SELECT E'a\\';b\\\\';`],
    ['in a name', `SELECT 1 AS "a;""b;";`],
    ['in a dollar quote', `SELECT $$a;b$$;`],
    ['in a dollar quote with a tag, that holds another', `SELECT $a$ $b$;$b$ $$;$$ ; $a$;`],
    ['in a line comment', `SELECT 1 -- a;b\n;`],
    ['in nested comments', `SELECT 1 /* a; /* b; */ c; */;`],
    ['in parentheses', `CREATE RULE r AS ON DELETE TO t DO ALSO (DELETE FROM u; DELETE FROM v;);`],
    [
      'in a body',
      `CREATE FUNCTION f() RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n SELECT 2;\nEND;`,
    ],
    ['in the body of a procedure', `CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;`],
  ])('%s does not end the statement', async (_, statement) => {
    expect(await texts(`${statement}\nSELECT 'next';\n`)).toEqual([statement, `SELECT 'next';`]);
  });

  it('after a name with a dollar sign ends it: that is not a quote', async () => {
    expect(await texts('SELECT a$b$; SELECT c$b$;')).toEqual(['SELECT a$b$;', 'SELECT c$b$;']);
  });

  it('after a column called "begin" or "end" ends it', async () => {
    expect(
      await texts('CREATE TABLE t (begin int, "end" int); CREATE VIEW v AS SELECT begin FROM t; SELECT 1;'),
    ).toHaveLength(3);
  });
});

it('a dump that was cut off is refused, not half applied', async () => {
  for (const cut of ['CREATE TABLE t (id int', `SELECT 'a`, 'SELECT $x$ a', 'SELECT /* a', 'SELECT 1'])
    await expect(texts(`SELECT 0;\n${cut}`)).rejects.toThrow(/the dump ends inside|unfinished/);
});

it('the commands of psql and the comments of pg_dump are not statements', async () => {
  expect(await texts('\\restrict abc\n--\n-- PostgreSQL; dump\n--\n\nSELECT 1;\n\\unrestrict abc\n')).toEqual([
    'SELECT 1;',
  ]);
});

describe('the parts of a schema', () => {
  const dump = [
    `SET transaction_timeout = 0;\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n`,
    'DROP INDEX IF EXISTS public.t_v;\nALTER TABLE IF EXISTS ONLY public.t DROP CONSTRAINT IF EXISTS t_pkey;\nDROP TABLE IF EXISTS public.t;\n\n',
    entry('TABLE', 't', 'CREATE TABLE public.t (id int, v int);', 'ALTER TABLE public.t OWNER TO me;'),
    entry('PUBLICATION', 'p', 'CREATE PUBLICATION p;'),
    entry('CONSTRAINT', 't t_pkey', 'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);'),
    entry('INDEX', 't_v', 'CREATE INDEX t_v ON public.t (v);'),
    entry(
      'TRIGGER',
      't cutover_fence_write',
      'CREATE TRIGGER cutover_fence_write BEFORE INSERT ON public.t;',
      'ALTER TABLE public.t ENABLE ALWAYS TRIGGER cutover_fence_write;',
    ),
    entry(
      'ACL',
      'TABLE t',
      'GRANT SELECT,MAINTAIN ON TABLE public.t TO app;',
      'GRANT MAINTAIN ON TABLE public.t TO other;',
      'GRANT SELECT ON TABLE public.t TO cutover_m1_replication;',
    ),
  ].join('');
  const parts = async (destinationVersion: number): Promise<Record<string, readonly string[]>> =>
    Object.fromEntries(
      Object.entries(await splitSchema(dump, { destinationVersion })).map(
        ([name, list]: [string, readonly { text: string }[]]) => [
          name,
          list.map((s) => s.text.replaceAll(/\s+/g, ' ')),
        ],
      ),
    );

  it('hold what the copy needs before it, the rest after it, and nothing of Cutover itself', async () => {
    expect(await parts(180000)).toEqual({
      pre: [
        'CREATE TABLE public.t (id int, v int);',
        'ALTER TABLE public.t OWNER TO me;',
        'GRANT SELECT,MAINTAIN ON TABLE public.t TO app;',
        'GRANT MAINTAIN ON TABLE public.t TO other;',
      ],
      primaryKeys: ['ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);'],
      post: ['CREATE INDEX t_v ON public.t (v);'],
    });
  });

  it('let an owner create in a schema before something there is given to it, as PostgreSQL asks of who is no superuser', async () => {
    const shop = [
      entry('SCHEMA', 'shop', 'CREATE SCHEMA shop;', 'ALTER SCHEMA shop OWNER TO me;'),
      entry('TABLE', 'u', 'CREATE TABLE shop.u (id int);', 'ALTER TABLE shop.u OWNER TO other;'),
      entry('ACL', 'SCHEMA shop', 'GRANT CREATE ON SCHEMA shop TO other;'),
      entry('ACL', 'TABLE u', 'GRANT SELECT ON TABLE shop.u TO app;'),
    ].join('');
    const { pre } = await splitSchema(shop, { destinationVersion: 180000 });
    expect(pre.map((s) => s.text)).toEqual([
      'CREATE SCHEMA shop;',
      'ALTER SCHEMA shop OWNER TO me;',
      'GRANT CREATE ON SCHEMA shop TO other;',
      'CREATE TABLE shop.u (id int);',
      'ALTER TABLE shop.u OWNER TO other;',
      'GRANT SELECT ON TABLE shop.u TO app;',
    ]);
  });

  it('leave out what an older destination does not know', async () => {
    expect((await parts(160000)).pre).toEqual([
      'CREATE TABLE public.t (id int, v int);',
      'ALTER TABLE public.t OWNER TO me;',
      'GRANT SELECT ON TABLE public.t TO app;',
    ]);
    const settings = async (version: number): Promise<readonly string[]> => [
      ...((await splitSchema(dump, { destinationVersion: version })).pre[0]?.settings.keys() ?? []),
    ];
    expect(await settings(160000)).toEqual(['client_encoding', 'search_path']);
    expect(await settings(170000)).toEqual(['transaction_timeout', 'client_encoding', 'search_path']);
  });

  it('carry the DROP that undoes each object', async () => {
    const { pre, primaryKeys, post } = await splitSchema(dump, { destinationVersion: 180000 });
    expect([...pre, ...primaryKeys, ...post].map((s) => s.drop).filter((drop) => drop !== null)).toEqual([
      'DROP TABLE IF EXISTS public.t;',
      'ALTER TABLE IF EXISTS ONLY public.t DROP CONSTRAINT IF EXISTS t_pkey;',
      'DROP INDEX IF EXISTS public.t_v;',
    ]);
  });
});

it('a long dump is divided in turns: what else the process has to do goes on between them', async () => {
  const names = Array.from({ length: 2_000 }, (_, index) => `t${index.toString()}`);
  const dump = [
    ...names.map((name) => `DROP TABLE IF EXISTS public.${name};\n`),
    ...names.map((name) => entry('TABLE', name, `CREATE TABLE public.${name} (id int, v int);`)),
  ].join('');
  let others = 0;
  let other = setImmediate(function goOn() {
    others += 1;
    other = setImmediate(goOn);
  });
  const { pre } = await splitSchema(dump, { destinationVersion: 180000 });
  clearImmediate(other);
  expect(pre).toHaveLength(2_000);
  expect(others).toBeGreaterThan(2);
});

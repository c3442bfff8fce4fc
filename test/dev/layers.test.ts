/** One task: prove that the layer rules bite: an import upwards, planted in a copy of the tree's shape, is an error. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');

/** The folders of the layers, the highest first, as the design lists them. */
const LAYERS = [
  'src/cli',
  'src/admin',
  'src/temporal',
  'activities',
  'src/fleet',
  'src/proxy',
  'src/sharding',
  'src/postgres',
  'src/config',
  'src/wire',
  'src/cutover',
  'src/errors',
];

let tree: string;

beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), 'cutover-layers-'));
  for (const file of ['.dependency-cruiser.cjs', 'tsconfig.json']) cpSync(join(ROOT, file), join(tree, file));
  for (const folder of [...LAYERS, 'workflows', 'src/dev']) plant(`${folder}/bottom.ts`, []);
  plant('src/serve.ts', []);
});

afterEach(() => {
  rmSync(tree, { recursive: true, force: true });
});

/** Writes a file that imports the named files and nothing else. */
function plant(file: string, imports: readonly string[]): void {
  const lines = imports.map((target) => {
    const path = relative(dirname(file), target.replace(/\.ts$/, '.js'));
    return `import '${path.startsWith('.') ? path : `./${path}`}';`;
  });
  mkdirSync(join(tree, dirname(file)), { recursive: true });
  writeFileSync(join(tree, file), `${lines.join('\n')}\nexport {};\n`);
}

/** The refused imports, as "from -> to". */
async function refused(): Promise<readonly string[]> {
  const program = join(ROOT, 'node_modules', 'dependency-cruiser', 'bin', 'dependency-cruise.mjs');
  const args = [
    program,
    '--config',
    '.dependency-cruiser.cjs',
    '--output-type',
    'json',
    'src',
    'workflows',
    'activities',
  ];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: tree, maxBuffer: 1e8 });
  const report = JSON.parse(stdout) as { summary: { violations: { from: string; to: string }[] } };
  return [...new Set(report.summary.violations.map(({ from, to }) => `${from} -> ${to}`))];
}

test('an import upwards between any two layers is refused, and every import downwards is allowed', async () => {
  const upwards: string[] = [];
  for (const [index, folder] of LAYERS.entries()) {
    const above = LAYERS.slice(0, index).map((layer) => `${layer}/bottom.ts`);
    const below = LAYERS.slice(index + 1).map((layer) => `${layer}/bottom.ts`);
    // The domain is stricter than its place in the list: a rule of its own.
    plant(`${folder}/downwards.ts`, below);
    plant(`${folder}/upwards.ts`, above);
    upwards.push(...above.map((target) => `${folder}/upwards.ts -> ${target}`));
  }
  expect([...(await refused())].sort()).toEqual(upwards.sort());
});

test('the process may not import commands, and commands may import the process', async () => {
  plant('src/serve.ts', ['src/cli/bottom.ts', 'src/dev/bottom.ts', 'src/admin/bottom.ts']);
  plant('src/cli/serve.ts', ['src/proxy/bottom.ts']);
  plant('src/dev/serve.ts', ['src/cli/bottom.ts']);
  expect([...(await refused())].sort()).toEqual([
    'src/serve.ts -> src/cli/bottom.ts',
    'src/serve.ts -> src/dev/bottom.ts',
  ]);
});

test('a workflow may import the domain only', async () => {
  plant('workflows/planted.ts', [
    'src/cutover/bottom.ts',
    'workflows/bottom.ts',
    'src/postgres/bottom.ts',
    'activities/bottom.ts',
  ]);
  expect([...(await refused())].sort()).toEqual([
    'workflows/planted.ts -> activities/bottom.ts',
    'workflows/planted.ts -> src/postgres/bottom.ts',
  ]);
});

test('a cycle, a folder without a layer and a Node built-in in the domain are refused', async () => {
  plant('src/wire/first.ts', ['src/wire/second.ts']);
  plant('src/wire/second.ts', ['src/wire/first.ts']);
  plant('src/helpers/bottom.ts', []);
  plant('src/proxy/planted.ts', ['src/helpers/bottom.ts']);
  writeFileSync(join(tree, 'src/cutover/planted.ts'), "import 'node:fs';\n");
  expect(await refused()).toEqual(
    expect.arrayContaining([
      'src/wire/first.ts -> src/wire/second.ts',
      'src/proxy/planted.ts -> src/helpers/bottom.ts',
      'src/cutover/planted.ts -> fs',
    ]),
  );
});

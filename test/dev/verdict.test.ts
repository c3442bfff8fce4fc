/** One task: prove that `npm test` tells the truth: what failed, broke, was skipped or never ran is never counted as passed. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);

interface Verdict {
  readonly lines: readonly string[];
  readonly exitCode: number;
}

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-verdict-'));
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Runs a test file with this text in vitest, and asks for the verdict as scripts/test.mjs does. */
async function verdictOf(text: string | undefined, inCI = false): Promise<Verdict> {
  if (text !== undefined) {
    writeFileSync(join(folder, 'planted.test.js'), `import { test, beforeAll, describe } from 'vitest';\n${text}\n`);
  }
  const summary = join(folder, 'summary.json');
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs');
  const reporter = join(ROOT, 'scripts', 'summary-reporter.mjs');
  const env = { ...process.env, CUTOVER_TEST_SUMMARY: summary };
  const runnerExitCode = await run(process.execPath, [vitest, 'run', `--reporter=${reporter}`], {
    cwd: folder,
    env,
  }).then(
    () => 0,
    (error: unknown) => (error as { code: number }).code,
  );
  const program = `
    import { verdict } from ${JSON.stringify(join(ROOT, 'scripts', 'verdict.mjs'))};
    process.stdout.write(JSON.stringify(verdict(JSON.parse(process.argv[1]), ${runnerExitCode.toString()}, ${inCI.toString()})));`;
  const args = ['--input-type=module', '-e', program, readFileSync(summary, 'utf8')];
  return JSON.parse((await run(process.execPath, args)).stdout) as Verdict;
}

const FAILING = "throw new Error('planted');";

test('passed tests are counted and exit 0', async () => {
  const { lines, exitCode } = await verdictOf("test('a', () => {}); test('b', () => {});");
  expect(lines).toEqual(['2 passed, 0 failed']);
  expect(exitCode).toBe(0);
});

test('a failed test is counted and exits 1', async () => {
  const { lines, exitCode } = await verdictOf(`test('a', () => {}); test('b', () => { ${FAILING} });`);
  expect(lines).toEqual(['1 passed, 1 failed']);
  expect(exitCode).toBe(1);
});

test.each([
  ['a file that does not load', FAILING],
  ['a hook that throws', `beforeAll(() => { ${FAILING} }); test('a', () => {});`],
  ['a hook of a suite that throws', `describe('s', () => { beforeAll(() => { ${FAILING} }); test('a', () => {}); });`],
  ['an error that no test awaits', "test('a', () => { void Promise.reject(new Error('planted')); });"],
])('%s does not read as passed', async (_, text) => {
  const { lines, exitCode } = await verdictOf(text);
  expect(lines.at(-1)).toMatch(/^\d+ passed, [1-9]\d* failed/);
  expect(lines.join('\n')).toContain('planted');
  expect(exitCode).toBe(1);
});

test('a skip is counted with its reason, and is a failure in CI', async () => {
  const text = "test('a', () => {}); test('b', (context) => { context.skip('no psql on this machine'); });";
  const elsewhere = await verdictOf(text);
  expect(elsewhere).toEqual({
    lines: ['skipped: b: no psql on this machine', '1 passed, 0 failed, 1 skipped'],
    exitCode: 0,
  });
  expect(await verdictOf(text, true)).toMatchObject({ exitCode: 1 });
});

test('a run without a test exits 1', async () => {
  const { lines, exitCode } = await verdictOf(undefined);
  expect(lines.at(-1)).toMatch(/^0 passed/);
  expect(exitCode).toBe(1);
});

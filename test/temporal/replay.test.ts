/**
 * One task: replay the recorded histories of every path against the workflows of today, and see a changed workflow fail.
 *
 * A move may soak for weeks: a worker with newer code must be able to go on with what an older one began. Histories that fail
 * here after a change that is meant are recorded again with record-histories.ts, and the change needs a patch or a new
 * workflow type as long as moves of the version before may run.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, DefaultLogger, Worker } from '@temporalio/worker';
import { describe, expect, test } from 'vitest';
import { activitiesOf, textOf } from './histories.js';
import { recordedHistories, type Recorded } from './recorded.js';
import { BUNDLE_PATH, quietRuntime } from './scripted-engine.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

quietRuntime();

const recorded = recordedHistories();

/** The workflow ids of the histories that `code` does not replay. */
async function broken(code: string, histories: readonly Recorded[]): Promise<readonly string[]> {
  const failed: string[] = [];
  const results = Worker.runReplayHistories({ workflowBundle: { code } }, [...histories]);
  for await (const { workflowId, error } of results) if (error) failed.push(workflowId);
  return failed;
}

describe('recorded histories', () => {
  test.each([
    'reshard.move-second-attempt',
    'reshard.stopped',
    'cutover.move-second-attempt.cutover-1',
    'cutover.rollback',
    'cutover.unchanged',
    'cutover.refused-without-streams',
    'replicate.move-second-attempt.streams',
    'replicate.streams-alone',
    'replicate.refused-held',
    'schemaSync.schema-sync-pre',
    'verify.verify',
    'cutover.rehearsal-back',
    'cutover.stopped-while-waiting',
    'cutover.aborted-in-the-pause',
    'reshard.refused-by-preflight',
    'reshard.refused-by-destination',
    'reshard.terminated',
    'reshard.after-terminated',
    'pause.move-second-attempt.cutover-1.pause-1',
    'pause.move-second-attempt.cutover-1.pause-2',
  ])('the path %s is among them', (name) => {
    expect(recorded.map((r) => r.name)).toContain(name);
  });

  test('the aborted attempt, its retry and both endings are what the names promise', () => {
    const summaries = (name: string): string => {
      const found = recorded.find((r) => r.name === name);
      return activitiesOf(found?.history ?? {})
        .map((a) => a.name)
        .join(' ');
    };
    expect(summaries('pause.move-second-attempt.cutover-1.pause-1')).toBe('moveTraffic returnToSource');
    expect(summaries('pause.move-second-attempt.cutover-1.pause-2')).toBe('moveTraffic');
    expect(summaries('cutover.move-second-attempt.cutover-1')).toMatch(/awaitMoment writeTimeline awaitMoment/);
    expect(summaries('replicate.move-second-attempt.streams')).toMatch(/finalizeMigration recordEvents$/);
    expect(summaries('replicate.stopped.streams')).toMatch(/removeMigration recordEvents$/);
  });

  test('say in each activity and marker, of every path, what it is for', () => {
    const entries = recorded.flatMap((r) => activitiesOf(r.history));
    expect(entries.map((e) => e.name)).toEqual(
      expect.arrayContaining(['returnToSource', 'removeMigration', 'syncSchema']),
    );
    const poor = entries.filter(({ name, summary }) => summary === name || !summary.includes(' '));
    expect(poor).toEqual([]);
  });

  test('tell nothing of the machine they were recorded on, and no secret', () => {
    for (const { name, history } of recorded) {
      const text = textOf(history);
      expect(text, name).not.toMatch(/\/(home|root|work|tmp|Users)\/|\.ts:\d+|secret|password=/);
    }
  });

  test('are replayed by the workflows of today', async () => {
    expect(await broken(readFileSync(BUNDLE_PATH, 'utf8'), recorded)).toEqual([]);
  });
});

describe('a change of a workflow that older histories do not allow', () => {
  test('breaks the replay of exactly those histories', async () => {
    const code = await bundleOf({
      // One more activity at the beginning; and another one in the pause.
      'workflows/cutover.ts': (text) =>
        swap(
          text,
          'const situation = await',
          "await short('Ask twice').assessSituation(request);\n    const situation = await",
        ),
      'workflows/pause.ts': (text) => swap(text, '.moveTraffic(plan)', '.returnToSource(plan, REHEARSAL)'),
    });
    const failed = await broken(code, recorded);
    const expected = recorded.filter(({ name }) => name.startsWith('cutover.') || name.startsWith('pause.'));
    expect([...failed].sort()).toEqual(expected.map((r) => r.workflowId).sort());
  });
});

/** The change must find what it changes, else it changes nothing and proves nothing. */
function swap(text: string, before: string, after: string): string {
  expect(text.split(before)).toHaveLength(2);
  return text.replace(before, after);
}

/** Bundles a copy of the workflows with some files changed. */
async function bundleOf(changes: Readonly<Record<string, (text: string) => string>>): Promise<string> {
  const copy = mkdtempSync(join(tmpdir(), 'cutover-replay-'));
  try {
    for (const folder of ['workflows', 'src/cutover', 'src/errors'])
      cpSync(join(ROOT, folder), join(copy, folder), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(copy, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
    for (const [file, change] of Object.entries(changes)) {
      const path = join(copy, file);
      writeFileSync(path, change(readFileSync(path, 'utf8')));
    }
    const { code } = await bundleWorkflowCode({
      workflowsPath: join(copy, 'workflows/index.ts'),
      logger: new DefaultLogger('ERROR'),
    });
    return code;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

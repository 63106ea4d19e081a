// The search of the list of runs: words and conditions, all of which must hold. Pure.
//
//   resnet "learning rate"      words in name, project, tags, id or verdict
//   tag:baseline status:failed  a field that holds the text; -tag:old for one that doesn't
//   loss<0.5 lr>=1e-3           numbers: loss, steps, rate, findings, hours, any metric, any configuration value

const TOKEN = /-?(?:[^\s"]*"[^"]*"|[^\s"]+)/g;
const CONDITION = /^([^<>=:!]+)(<=|>=|!=|<|>|=|:)(.*)$/;
const LOST_S = 15;

/** The status of a run at `now` (seconds), as people read it. */
export function status(run, now) {
  if (run.reported) return run.reported;
  return now - run.seen > LOST_S ? "lost contact" : "running";
}

const NUMBERS = {
  loss: (run) => run.loss,
  step: (run) => run.step,
  steps: (run) => run.step + 1,
  rate: (run) => run.rate,
  findings: (run) => run.findings.warning + run.findings.critical,
  critical: (run) => run.findings.critical,
  hours: (run) => (run.seen - run.created) / 3600,
};

const TEXTS = {
  tag: (run) => run.tags,
  status: (run, now) => [status(run, now), ...(status(run, now) === "running" ? ["live"] : [])],
  project: (run) => [run.project],
  name: (run) => [run.name],
  id: (run) => [run.id],
  verdict: (run) => [`${run.state} ${run.sentence}`],
  finding: (run) => run.rules,
  layer: (run) => run.layers,
};

function words(run, now) {
  return [run.name, run.project, run.id, run.state, run.sentence, status(run, now), ...run.tags, ...run.rules]
    .join(" ")
    .toLowerCase();
}

/** The values that `name` stands for in a run: of its own fields, its metrics or its configuration. */
export function lookUp(run, name, now) {
  const key = name.toLowerCase();
  if (Object.hasOwn(TEXTS, key)) return TEXTS[key](run, now);
  if (Object.hasOwn(NUMBERS, key)) return [NUMBERS[key](run)];
  const plain = name.replace(/^(config|metric)\./, "");
  const found = [];
  if (!name.startsWith("config.") && Object.hasOwn(run.metrics, plain)) found.push(run.metrics[plain]);
  if (!name.startsWith("metric.") && Object.hasOwn(run.config, plain)) found.push(run.config[plain]);
  return found;
}

function holds(value, operator, wanted) {
  if (value === null || value === undefined) return false;
  const number = Number(wanted);
  const numeric = wanted !== "" && !Number.isNaN(number);
  if (operator === ":") return String(value).toLowerCase().includes(wanted.toLowerCase());
  if (operator === "=") return numeric ? Number(value) === number : String(value).toLowerCase() === wanted.toLowerCase();
  if (typeof value !== "number" || !numeric) return false;
  return { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[operator];
}

function term(source) {
  const negated = source.length > 1 && source.startsWith("-");
  const text = (negated ? source.slice(1) : source).replaceAll('"', "");
  const condition = source.startsWith('"') ? null : CONDITION.exec(text);
  if (!condition) {
    const word = text.toLowerCase();
    return { negated, test: (run, now) => words(run, now).includes(word) };
  }
  const [, name, operator, wanted] = condition;
  const known = (run, now) => lookUp(run, name, now).length > 0;
  if (operator === "!=") {
    const test = (run, now) => known(run, now) && !lookUp(run, name, now).some((value) => holds(value, "=", wanted));
    return { negated, name, known, test };
  }
  return { negated, name, known, test: (run, now) => lookUp(run, name, now).some((value) => holds(value, operator, wanted)) };
}

/** What `text` asks for: `matches(run, now)`, and `unknown(runs, now)`, the names that no run knows. */
export function parse(text) {
  const terms = (text.match(TOKEN) ?? []).map(term);
  return {
    empty: terms.length === 0,
    matches: (run, now) => terms.every(({ test, negated }) => test(run, now) !== negated),
    unknown: (runs, now) =>
      terms.filter(({ known }) => known && !runs.some((run) => known(run, now))).map(({ name }) => name),
  };
}

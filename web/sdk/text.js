// What a server makes of a text before anybody sees it, so that a text can be counted, and
// refused, where it is typed. It is the cleaning of the protocol ("Text, style and limits");
// protocol/testdata/text.json has cases that servers are tested with, too.

const MAX_MARKS = 4; // nonspacing marks on one character
const MAX_RUN = 20; // code points that belong to one character
/** How many line feeds a comment may have. */
export const MAX_LINE_FEEDS = 20;

const CANCEL_TAG = 0xe007f;
const BLACK_FLAG = 0x1f3f4; // what the flags that are spelled with tags start with
const ZWJ = 0x200d;

const is = (pattern) => (r) => pattern.test(String.fromCodePoint(r));

// What is drawn by itself, without looking further: printable ASCII, kana, common ideographs, Hangul.
const isOrdinary = (r) => (r > 0x20 && r < 0x7f) || (r >= 0x3041 && r <= 0x3096) || (r >= 0x30a1 && r <= 0x30ff) ||
  (r >= 0x4e00 && r <= 0x9fff) || (r >= 0xac00 && r <= 0xd7a3);
const isJoiner = (r) => r === 0x200c || r === ZWJ;
const isBidiMark = (r) => r === 0x200e || r === 0x200f || r === 0x61c;
const isTag = (r) => r >= 0xe0020 && r <= CANCEL_TAG;
const isSelector = (r) => (r >= 0xfe00 && r <= 0xfe0f) || (r >= 0xe0100 && r <= 0xe01ef) || (r >= 0x180b && r <= 0x180d) || r === 0x180f;
// Format characters that are drawn all the same.
const isPrependedMark = (r) => (r >= 0x600 && r <= 0x605) || r === 0x6dd || r === 0x70f || r === 0x890 || r === 0x891 || r === 0x8e2 ||
  r === 0x110bd || r === 0x110cd || (r >= 0x13430 && r <= 0x1343f);
// Letters and symbols that are drawn as nothing.
const isBlank = (r) => [0x115f, 0x1160, 0x3164, 0xffa0, 0x2800, 0x1d159].includes(r);

const isMark = is(/\p{M}/u);
const isControl = is(/[\p{Cc}\p{Cf}]/u);
const isNotDrawn = is(/[\p{White_Space}\p{Mn}\p{Me}\p{Z}\p{Cc}]/u);
const isFormat = is(/\p{Cf}/u);
const isLetter = is(/\p{L}/u);
const isNonspacing = is(/[\p{Mn}\p{Me}]/u);
// Spacing marks that take part in canonical ordering; patterns cannot ask for that.
const isOrderedSpacing = is(/[\u1715\u1734\u1b44\u1baa\u1bf2\u1bf3\u302e\u302f\ua953\ua9c0\u{111c0}\u{11235}\u{1134d}\u{116b6}\u{1193d}\u{11f41}\u{16ff0}\u{16ff1}\u{1d165}\u{1d166}\u{1d16d}-\u{1d172}]/u);
const isJoining = is(/[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Nko}\p{Script=Mandaic}\p{Script=Mongolian}\p{Script=Adlam}\p{Script=Hanifi_Rohingya}\p{Script=Phags_Pa}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Tibetan}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Balinese}\p{Script=Javanese}\p{Script=Sundanese}\p{Script=Chakma}\p{Script=Newa}\p{Script=Kaithi}\p{Script=Tai_Tham}]/u);
const isVaried = is(/[\p{Script=Han}\p{S}\p{P}\p{N}\p{Script=Mongolian}\p{Script=Phags_Pa}\p{Script=Myanmar}\p{Script=Manichaean}]/u);

// isRemoved reports whether r goes wherever it stands.
function isRemoved(r) {
  if (r === 0x34f || r === 0x17b4 || r === 0x17b5 || (r >= 0xfdd0 && r <= 0xfdef) || (r & 0xfffe) === 0xfffe) return true;
  if ((r >= 0xe0000 && r <= 0xe0fff) || r === 0x2065 || (r >= 0xfff0 && r <= 0xfff8)) return true;
  return !isPrependedMark(r) && isControl(r);
}

// trails reports whether r belongs to the character before it.
const trails = (r) => (r >= 0x300 && isMark(r)) || (r >= 0x1160 && r <= 0x11ff) || (r >= 0xd7b0 && r <= 0xd7fb) || r === 0xff9e || r === 0xff9f;

const isStacked = (r) => isNonspacing(r) || isOrderedSpacing(r);

// isEmoji reports whether r may be a part of an emoji that is joined.
function isEmoji(r) {
  if (r < 0x2190) return [0xa9, 0xae, 0x203c, 0x2049, 0x2122, 0x2139].includes(r);
  if (r === 0x2329 || r === 0x232a) return false;
  return r <= 0x21ff || (r >= 0x2300 && r <= 0x23ff) || (r >= 0x24b6 && r <= 0x27bf) || (r >= 0x2900 && r <= 0x297f) ||
    (r >= 0x2b00 && r <= 0x2bff) || r === 0x3030 || r === 0x303d || r === 0x3297 || r === 0x3299 || (r >= 0x1f000 && r <= 0x1faff);
}

// hasVariants reports whether a variation selector behind r can mean anything.
function hasVariants(r) {
  if (r < 0x80) return (r >= 0x30 && r <= 0x39) || r === 0x23 || r === 0x2a;
  return !isBlank(r) && !isMark(r) && (isEmoji(r) || isVaried(r));
}

// joins reports whether the joiner r does something between prev, whose base is base, and next.
function joins(r, prev, base, next) {
  if (isJoiner(prev) || isBidiMark(prev)) return false;
  if (base >= 0x600 && isLetter(base) && isJoining(base)) return true;
  return r === ZWJ && isEmoji(next) && (isEmoji(prev) || (isEmoji(base) && (isSelector(prev) || prev === CANCEL_TAG)));
}

const isRightToLeft = (r) => r >= 0x590 && isLetter(r) && (r <= 0x8ff || (r >= 0xfb1d && r <= 0xfefc) ||
  (r >= 0x10800 && r <= 0x10fff) || (r >= 0x1e800 && r <= 0x1efff));

const isVisible = (r) => isOrdinary(r) ||
  (!isNotDrawn(r) && !isBlank(r) && (isPrependedMark(r) || !isFormat(r)));

// tagsAt returns the run of tags at i, to the first cancel tag.
function tagsAt(runes, i) {
  let end = i;
  while (end < runes.length && isTag(runes[end])) if (runes[end++] === CANCEL_TAG) break;
  return runes.slice(i, end);
}

// isRegion reports whether tags spell a region: letters and digits, and the cancel tag.
const isRegion = (tags) => tags.length > 1 && tags.length <= 16 && tags.at(-1) === CANCEL_TAG &&
  tags.slice(0, -1).every((t) => (t >= 0xe0030 && t <= 0xe0039) || (t >= 0xe0061 && t <= 0xe007a));

// filter removes and replaces code points of s, which is in NFC.
function filter(s) {
  const runes = Array.from(s, (c) => c.codePointAt(0));
  const bidi = runes.some(isRightToLeft);
  const kept = [];
  let prev = 0; // the last one that was kept
  let base = 0; // the last one that was no mark
  let marks = 0; // stacked on base
  let run = 0; // that belong to base
  for (let i = 0; i < runes.length; i++) {
    const r = runes[i];
    let tags = null;
    let keep = r; // undefined: it goes
    if (isOrdinary(r)) {
      // As most are.
    } else if (r === 0xd || r === 0x2028 || r === 0x2029) keep = r === 0xd && runes[i + 1] === 0xa ? undefined : 0xa;
    else if (r === 0x9) keep = 0x20;
    else if (r === 0xa) keep = r;
    else if (isBidiMark(r)) keep = bidi && !isBidiMark(prev) ? r : undefined;
    else if (isJoiner(r)) keep = joins(r, prev, base, runes[i + 1] ?? 0xfffd) ? r : undefined;
    else if (isSelector(r)) keep = hasVariants(prev) ? r : undefined;
    else if (isTag(r)) {
      tags = tagsAt(runes, i);
      i += tags.length - 1;
      if (prev !== BLACK_FLAG || !isRegion(tags)) keep = undefined;
    } else if (isRemoved(r)) keep = undefined;
    else if (trails(r)) {
      if (isStacked(r)) marks++;
      if (++run > MAX_RUN || marks > MAX_MARKS) keep = undefined;
    }
    if (keep === undefined) continue;
    kept.push(...(tags ?? [keep]));
    prev = tags ? CANCEL_TAG : keep;
    if (!tags && !trails(keep) && !isJoiner(keep)) {
      base = keep;
      marks = run = 0;
    }
  }
  return kept.map((r) => String.fromCodePoint(r)).join("");
}

/**
 * measure says what becomes of a comment: `text` as everybody gets it, how many code points and line feeds count
 * against the limits, and whether there is nothing to see in it.
 */
export function measure(text) {
  let clean = String(text).replace(/\p{Cs}/gu, "\ufffd"); // half of a pair of surrogates
  if (!/^[\n -~]*$/.test(clean)) clean = filter(clean.normalize("NFC")).normalize("NFC");
  const runes = Array.from(clean, (c) => c.codePointAt(0));
  return { text: clean, length: runes.length, lineFeeds: runes.filter((r) => r === 0xa).length, empty: !runes.some(isVisible) };
}
